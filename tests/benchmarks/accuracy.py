"""The accuracy that an exported network loses: ``python -m tests.benchmarks.accuracy SET --checkpoint FILE --out DIR``.

Every network gets the same slices, masks and boxes of the validation part of a prepared set, as in an evaluation of the
bundle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fire
import numpy as np
import torch
from monai.transforms import Compose
from tqdm import tqdm

from custom.data.datasets import SliceDataset
from custom.data.prepared import load_dataset
from custom.handlers import ModalityMetric
from custom.inference.backend import Backend
from custom.inference.models import choose_model
from custom.inference.openvino_backend import OpenVINOBackend
from custom.memory import keep_freed_memory
from custom.transforms import CropBoxesd, LoadSliced, PickMasksd, RandBoxd, RestoreMasksd, ToFramed
from tests.benchmarks.tables import names, write_tables

REFERENCE = "PyTorch"


@dataclass(frozen=True)
class Accuracy:
    """Mean DSC over modalities in percent, its difference from PyTorch's, and the largest difference of a logit."""

    network: str
    dsc: float
    difference: float
    worst: float


class OnnxBackend(OpenVINOBackend):
    """The ONNX graphs of an exported folder, read by OpenVINO."""

    ending = ".onnx"


def accuracy(
    dataset_dir: str,
    *,
    checkpoint: str,
    out: str,
    models: str = "",
    val_slices: int = 3,
    val_masks: int = 4,
    every: int = 1,
) -> None:
    """Print the mean DSC over modalities of PyTorch and of exported networks, and write accuracy.md and accuracy.csv.

    Args:
        dataset_dir: prepared set; its validation part is used.
        checkpoint: weights for PyTorch and for the backend that ``Predictor(checkpoint)`` chooses.
        out: folder for the tables.
        models: further exported folders of these weights, separated by commas; those with ONNX files count twice.
        val_slices: largest number of slices of a volume.
        val_masks: largest number of masks of a slice.
        every: use only every n-th case.
    """
    limits = {"val_slices": val_slices, "val_masks": val_masks, "every": every}
    folders = list(map(Path, names(models))) if models else []
    title, found = measure(dataset_dir, checkpoint=checkpoint, models=folders, default=True, **limits)
    rows = [[line.network, f"{line.dsc:.3f}", f"{line.difference:+.3f}", f"{line.worst:.2g}"] for line in found]
    header = ["network", "DSC, mean over modalities, %", "difference, points", "largest difference of a logit"]
    print(write_tables(Path(out), "accuracy", {title: (header, rows)}))


def measure(
    dataset_dir: str,
    *,
    checkpoint: str,
    models: Sequence[Path],
    default: bool = False,
    val_slices: int = 3,
    val_masks: int = 4,
    every: int = 1,
) -> tuple[str, list[Accuracy]]:
    """Return the data and the accuracy of PyTorch, of the default and of each exported network."""
    keep_freed_memory()
    backends = {REFERENCE: choose_model(checkpoint=checkpoint, backend="torch", precision="f32", clip="none").start()}
    transform = Compose(
        [
            LoadSliced(["image", "label"]),
            PickMasksd("label"),
            RandBoxd("label", seeded_by=["case", "slice"]),
            CropBoxesd("image", crops={"crop": backends[REFERENCE].crop_size}),
            ToFramed("image"),
        ]
    )
    cases = load_dataset(dataset_dir).validation[::every]
    slices = SliceDataset(cases, transform, max_slices=val_slices, max_masks=val_masks)
    if default:
        chosen = choose_model(checkpoint=checkpoint)
        backends[f"default: {chosen.facts['backend']} {chosen.facts['precision']}"] = chosen.start()
    for folder in models:
        model = choose_model(model=str(folder))
        backends[f"OpenVINO {model.facts['precision']}"] = model.start()
        if (folder / "encoder.onnx").is_file():
            backends["ONNX f32"] = OnnxBackend(folder, precision="f32")
    metrics = {name: ModalityMetric(metric_fn="dsc") for name in backends}
    worst = dict.fromkeys(backends, 0.0)
    for item in tqdm(slices):
        logits = {name: _run(backend, item) for name, backend in backends.items()}
        for name, value in logits.items():
            result = RestoreMasksd("pred")(item | {"pred": value})["result"]
            metrics[name].update([result])
            worst[name] = max(worst[name], float((value - logits[REFERENCE]).abs().max()))
    title = f"{len(cases)} cases of {dataset_dir}, {len(slices)} slices"
    reference = metrics[REFERENCE].compute()
    dsc = {name: metric.compute() for name, metric in metrics.items()}
    return title, [Accuracy(name, value, value - reference, worst[name]) for name, value in dsc.items()]


def _run(backend: Backend, item: Mapping[str, Any]) -> torch.Tensor:
    """Return the mask logits of a slice's boxes, Nx256x256."""
    (embedding,) = backend.encode(item["image"].numpy()[None])  # 3x256x256 -> 1x3x256x256
    boxes = item["boxes"].numpy().astype(np.float32)
    return torch.from_numpy(backend.decode(embedding, boxes, item["modality_index"], item["crop"].numpy()).mask_logits)


if __name__ == "__main__":
    fire.Fire(accuracy)
