"""What an exported network loses: ``python -m tests.benchmarks.accuracy --checkpoint FILE --models f32,bf16,int8 ...``.

Every network gets the same slices, masks and boxes of the validation part of a prepared set, as evaluating the bundle
does.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from custom.inference.models import openvino_model, torch_model
from custom.memory import keep_freed_memory
from custom.transforms import CropBoxesd, LoadSliced, PickMasksd, RandBoxd, RestoreMasksd, ToFramed
from tests.benchmarks.tables import names, write_tables

REFERENCE = "PyTorch"


def accuracy(
    dataset_dir: str,
    *,
    checkpoint: str,
    models: str,
    out: str,
    val_slices: int = 3,
    val_masks: int = 4,
    every: int = 1,
) -> None:
    """Print the mean DSC over modalities of PyTorch and of exported networks, and write accuracy.md and accuracy.csv.

    Args:
        dataset_dir: prepared set; its validation part is used.
        checkpoint: weights for PyTorch, those the networks were exported from.
        models: exported folders, separated by commas.
        out: folder for the tables.
        val_slices: at most so many slices of a volume.
        val_masks: at most so many masks of a slice.
        every: take every n-th case only.
    """
    keep_freed_memory()
    backends = {REFERENCE: torch_model(checkpoint, clip="none").start()}
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
    for folder in names(models):
        model = openvino_model(folder)
        backends[f"OpenVINO {model.told['precision']}"] = model.start()
    metrics = {name: ModalityMetric(metric_fn="dsc") for name in backends}
    worst = dict.fromkeys(backends, 0.0)
    for item in tqdm(slices):
        logits = {name: _run(backend, item) for name, backend in backends.items()}
        for name, value in logits.items():
            result = RestoreMasksd("pred")(item | {"pred": value})["result"]
            metrics[name].update([result])
            worst[name] = max(worst[name], float((value - logits[REFERENCE]).abs().max()))
    rows = []
    for name, metric in metrics.items():
        difference = metric.compute() - metrics[REFERENCE].compute()
        rows.append([name, f"{metric.compute():.3f}", f"{difference:+.3f}", f"{worst[name]:.2g}"])
    header = ["network", "DSC, mean over modalities, %", "difference, points", "largest difference of a logit"]
    title = f"{len(cases)} cases of {dataset_dir}, {len(slices)} slices"
    print(write_tables(Path(out), "accuracy", {title: (header, rows)}))


def _run(backend: Backend, item: Mapping[str, Any]) -> torch.Tensor:
    """Return the mask logits of a slice's boxes, Nx256x256."""
    (embedding,) = backend.encode(item["image"].numpy()[None])  # 3x256x256 -> 1x3x256x256
    boxes = item["boxes"].numpy().astype(np.float32)
    return torch.from_numpy(backend.decode(embedding, boxes, item["modality_index"], item["crop"].numpy()).mask_logits)


if __name__ == "__main__":
    fire.Fire(accuracy)
