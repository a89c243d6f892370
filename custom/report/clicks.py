"""How far clicks correct the masks of checkpoints.

python -m custom.report.clicks CHECKPOINT NAME=CHECKPOINT ... --dataset_dir D --out DIR
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, fields
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from monai.transforms import Compose
from tqdm import tqdm

from custom.atomic_write import write_whole
from custom.clicks import Click, error_click
from custom.command_line import run
from custom.data.datasets import SliceDataset
from custom.data.prepared import CaseRecord, load_dataset
from custom.errors import InputError
from custom.inference.backend import Backend
from custom.inference.cached_backend import CachedBackend
from custom.inference.corrections import Corrections
from custom.inference.models import choose_model
from custom.inference.segmenter import BoxSegmenter
from custom.metrics import dice_score, surface_dice
from custom.report.checkpoints import named_checkpoints
from custom.report.clicks_figure import draw
from custom.report.clicks_tables import BOX, CLICK, CLICKS, NOC_CAP, TARGETS, Step, markdown
from custom.report.rows import write_rows
from custom.transforms import LoadSliced, PickMasksd, RandBoxd

#: Largest outward shift of a box's sides, in pixels of the 256 frame, as in the bundle's evaluation.
MAX_SHIFT = 5
COLUMNS = tuple(field.name for field in fields(Step))


def clicks(
    *checkpoints: str,
    dataset_dir: str,
    out: str = "clicks",
    every: int = 1,
    click_first: bool = True,
    noc: bool = False,
    val_slices: int = 5,
    val_masks: int = 8,
    backend: str = "auto",
    precision: str | None = None,
    device: str | None = None,
    clip: str = "none",
) -> None:
    """Correct each mask of the validation part by five clicks on its errors, and score the mask after each click.

    The masks and their boxes are those of the bundle's evaluation. Each click lies at the centre of the largest error
    of the last mask, as in the interactive challenge of CVPR 2025. Objects start once with their box and once with a
    click at their centre. Writes ``clicks.csv``, ``clicks.md`` and ``clicks.png``, anew after each checkpoint, and
    shows the tables. Weights that were not trained with clicks take them as SAM does, and need PyTorch.

    Args:
        checkpoints: each FILE or NAME=FILE, a FILE alone under its own name; FILE may be lite_medsam.
        dataset_dir: the prepared set.
        out: folder of the three files.
        every: use every K-th case of the validation part only.
        click_first: also start with a click in place of the box.
        noc: click up to 20 times until DSC reaches 90, to count the clicks that this takes; slow.
        val_slices: largest number of slices of a volume.
        val_masks: largest number of masks of a slice.
        backend: "auto", "torch" or "openvino".
        precision: "f32" or "bf16"; by default the fastest on this processor.
        device: where PyTorch computes, e.g. "cpu" or "cuda:0".
        clip: the CLIP the weights were trained with.

    Raises:
        InputError: no such checkpoint, two of one name, no case, or weights that take no clicks with this backend.
    """
    named, folder = named_checkpoints(checkpoints), Path(str(out))
    if every < 1:
        raise InputError("arguments", "every", every, "a whole number from 1")
    prepared = load_dataset(str(dataset_dir))
    cases = prepared.validation[::every]
    if not cases:
        raise InputError(dataset_dir, "validation", "no case", "one at least")
    options = {"precision": precision, "device": device, "clip": str(clip)}
    seen, steps = {case.dataset for case in prepared.training}, []
    backends = {name: start(path, backend, options) for name, path in named.items()}
    datasets, starts = {case.case: case.dataset for case in cases}, (BOX, CLICK) if click_first else (BOX,)
    items = validation_slices(cases, val_slices, val_masks)
    for name, started in backends.items():
        for i in tqdm(range(len(items)), desc=name, unit="slice", disable=None):
            for step in correct(started, items[i], starts=starts, noc=noc):
                dataset = datasets[step["case"]]
                steps.append(Step(network=name, dataset=dataset, new=dataset not in seen, **step))
        write(steps, folder, noc=noc)
    print((folder / "clicks.md").read_text())


def start(checkpoint: Path, backend: str, options: Mapping[str, Any]) -> Backend:
    """Start a checkpoint so that it takes clicks.

    Raises:
        InputError: weights that were not trained with clicks, with OpenVINO.
    """
    model = choose_model(checkpoint=str(checkpoint), backend=backend, **options)
    started = choose_model(checkpoint=str(checkpoint), backend="torch", **options).start()
    if started.takes_clicks:
        return started if backend == "torch" else model.start()
    if backend == "openvino":
        raise InputError(checkpoint, "backend", "openvino, for weights that were not trained with clicks", "torch")
    started.network.prompt_encoder.click_tokens = True
    return started


def validation_slices(cases: Sequence[CaseRecord], max_slices: int, max_masks: int) -> SliceDataset:
    """Return slices, masks and boxes of cases as the bundle's evaluation has them, all in native pixels."""
    transforms = [
        LoadSliced(["image", "label"]),
        PickMasksd("label"),
        RandBoxd("label", max_shift=MAX_SHIFT, seeded_by=("case", "slice")),
    ]
    return SliceDataset(cases, Compose(transforms), max_slices=max_slices, max_masks=max_masks)


def correct(
    backend: Backend, item: Mapping[str, Any], *, starts: Sequence[str] = (BOX, CLICK), noc: bool = False
) -> Iterator[dict[str, Any]]:
    """Prompt the objects of a slice, click on the errors, and score each mask.

    Args:
        backend: takes clicks.
        item: an item of ``validation_slices``.
        starts: what the objects start with, "box" or "click".
        noc: go on up to 20 clicks until DSC reaches 90.

    Yields:
        What a ``Step`` knows of its object; the object's first step is that of its start, without further clicks.
    """
    segmenter = BoxSegmenter(CachedBackend(backend, capacity=1), keep_masks=True)
    image = item["image"].permute(1, 2, 0).numpy()  # 3xHxW -> HxWx3
    spacing = item["spacing"][1:] if item["dimension"] == 3 else None  # the tolerance is 2 mm, of a picture 2 pixels
    place = {"case": item["case"], "modality": item["modality"], "slice": int(item["slice"])}
    truths, boxes = item["label"].bool().numpy(), item["boxes"].double().numpy()
    encoded = False
    for (label, truth, box), kind in product(zip(item["label_ids"], truths, boxes, strict=True), starts):
        made = [] if kind == BOX else [error_click(np.zeros_like(truth), truth)]
        given = box if kind == BOX else np.full(4, np.nan)
        score: dict[str, Any] = {}
        for count in range(NOC_CAP - len(made) + 1 if noc else CLICKS + 1):
            if count > CLICKS and score["dsc"] >= max(TARGETS):
                break
            if None in made:  # no error is left to click on
                score["seconds"] = None
            else:
                begin = time.perf_counter()
                found = segmenter.segment_picture(image, given[None], item["modality"], corrections=[_said(made)])
                seconds, mask = time.perf_counter() - begin, found.masks[0]
                score = {
                    "dsc": 100 * float(dice_score(mask[None], truth[None])[0]),
                    "nsd": 100 * float(surface_dice(mask[None], truth[None], spacing=spacing)[0]),
                    "predicted_iou": float(found.iou[0]),
                    "seconds": seconds if encoded else None,
                }
                encoded = True
                made.append(error_click(mask, truth))
            yield {**place, "label": int(label), "start": kind, "clicks": count, **score}


def write(steps: Sequence[Step], folder: Path, *, noc: bool = False) -> None:
    """Write ``clicks.csv``, ``clicks.md`` and ``clicks.png`` into a folder, made if missing."""
    write_rows(folder / "clicks.csv", COLUMNS, (map(_text, astuple(step)) for step in steps))
    text, image = markdown(steps, noc=noc), draw(steps)
    write_whole(folder / "clicks.md", lambda file: file.write(text.encode()))
    write_whole(folder / "clicks.png", lambda file: file.write(image))


def _said(made: Sequence[Click]) -> Corrections:
    points = np.array([[click.x, click.y] for click in made], np.float64).reshape(-1, 2)
    return Corrections(points=points, labels=np.array([click.label for click in made], np.int64))


def _text(value: object) -> object:
    if isinstance(value, bool):
        return int(value)
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else value


def main() -> None:
    """Run the command line."""
    run(clicks, name="python -m custom.report.clicks")


if __name__ == "__main__":
    main()
