"""Everything that is written about one image: masks, an overlay, and a JSON file that is written last."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from custom.errors import InputError
from custom.files import write_whole
from custom.inference.mask_files import mask_ending, write_mask, write_png
from custom.inference.overlay import draw_montage, draw_overlay
from custom.inference.segmenter import Segmentation
from custom.inference.sources import InputImage
from custom.json_files import read_json
from custom.modalities import MODALITIES
from custom.version import __version__

#: From this probability on, the network contradicts a declared modality.
SURE = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class CaseResult:
    """A segmented image.

    Attributes:
        image: what was segmented.
        boxes: Nx4 or Nx6 in pixels of the source.
        segmentation: what came out; with masks, they are written one by one.
        told: what else the JSON file says, e.g. the model and the options.
        fingerprint: stands for everything the result depends on.
        read_seconds: time it took to read the image.
    """

    image: InputImage
    boxes: np.ndarray
    segmentation: Segmentation
    told: Mapping[str, Any]
    fingerprint: str
    read_seconds: float


def report_path(folder: Path, name: str) -> Path:
    """Return the JSON file of a case."""
    return folder / f"{name}.json"


def read_report(folder: Path, name: str) -> dict[str, Any] | None:
    """Return what an earlier run wrote about a case; None where there is no such file."""
    try:
        report = read_json(report_path(folder, name), "a report")
    except InputError:
        return None
    files = report.get("files") if isinstance(report, dict) and "fingerprint" in report else None
    return report if isinstance(files, list) and all(isinstance(file, str) for file in files) else None


def is_finished(folder: Path, name: str, fingerprint: str) -> bool:
    """Tell whether the results of a case are there and still hold."""
    report = read_report(folder, name)
    return (
        report is not None
        and report["fingerprint"] == fingerprint
        and all((folder / Path(file).name).is_file() for file in report["files"])
    )


def write_results(result: CaseResult, folder: Path, name: str) -> dict[str, Any]:
    """Write the masks, ``<name>_overlay.png`` and ``<name>.json``, and return the JSON's content.

    The masks are one label map ``<name>_mask.*`` (of an npz ``<name>.npz``), or, where the segmentation has separate
    masks, ``<name>_mask_<k>.*`` with the values 0 and 1 for each box k. Each file appears whole or not at all; the
    JSON file of an earlier run goes first and the new one comes last, so that one that is there always describes the
    files beside it. After an error, none of the files of this run stays.

    Raises:
        InputError: see ``write_mask``.
        OSError: a file cannot be written.
    """
    start = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    earlier = read_report(folder, name) or {"files": []}
    report_path(folder, name).unlink(missing_ok=True)
    masks, overlay = _mask_names(result, name), f"{name}_overlay.png"
    for file in set(earlier["files"]) - {*masks, overlay}:
        if file.startswith(name) and Path(file).name == file:
            (folder / file).unlink(missing_ok=True)
    try:
        _write_masks(result, [folder / mask for mask in masks])
        write_png(folder / overlay, _draw(result))
        report = describe(result) | {"files": [*masks, overlay], "fingerprint": result.fingerprint}
        report["seconds"]["write"] = round(time.perf_counter() - start, 4)
        text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
        write_whole(report_path(folder, name), lambda file: file.write(text.encode("utf-8", "backslashreplace")))
    except BaseException:
        for file in (*masks, overlay):
            (folder / file).unlink(missing_ok=True)
        raise
    return report


def _mask_names(result: CaseResult, name: str) -> list[str]:
    ending = mask_ending(result.image)
    if result.segmentation.masks is not None:
        return [f"{name}_mask_{k}{ending}" for k in range(1, len(result.boxes) + 1)]
    return [f"{name}{ending}" if result.image.format == "npz" else f"{name}_mask{ending}"]


def _write_masks(result: CaseResult, paths: list[Path]) -> None:
    image, segmentation = result.image, result.segmentation
    names = {k: f"box {k}" for k in range(1, len(result.boxes) + 1)}
    if segmentation.masks is None:
        write_mask(paths[0], segmentation.labels, names, image)
        return
    for k, (path, mask) in enumerate(zip(paths, segmentation.masks, strict=True), start=1):
        write_mask(path, mask.astype(np.uint8), {1: names[k]}, image)


def _draw(result: CaseResult) -> np.ndarray:
    image, labels = result.image, result.segmentation.labels
    boxes = image.boxes_to_array(result.boxes)
    if image.kind == "picture":
        return draw_overlay(image.array, labels, boxes)
    return draw_montage(image.array, labels, boxes, [image.slice_name(z) for z in range(len(labels))])


def describe(result: CaseResult) -> dict[str, Any]:
    """Return the numbers of a result: the content of its JSON file, without the names of other files."""
    image, segmentation = result.image, result.segmentation
    known = "classifier" if segmentation.modality else None
    seconds = {"read": result.read_seconds, **segmentation.seconds}
    return {
        "image": image.path,
        "kind": image.kind,
        "size": list(image.size),
        "spacing": None if image.source_spacing is None else list(image.source_spacing),
        "modality": image.modality or segmentation.modality,
        "modality_source": image.modality_source or known,
        "boxes": [_describe_box(result, k, count) for k, count in enumerate(_counts(segmentation, len(result.boxes)))],
        **result.told,
        "seconds": {stage: round(value, 4) for stage, value in seconds.items()},
        "version": __version__,
    }


def _describe_box(result: CaseResult, k: int, count: int) -> dict[str, Any]:
    image, segmentation = result.image, result.segmentation
    box = [int(v) if v == int(v) else float(v) for v in result.boxes[k]]
    entry: dict[str, Any] = {"box": box, "iou": round(float(segmentation.iou[k]), 4)}
    pixels, measure = ("area", "area_mm2") if image.kind == "picture" else ("voxels", "volume_mm3")
    entry[pixels] = count
    if image.spacing is not None:
        entry[measure] = round(count * float(np.prod(image.spacing)), 4)
    entry |= {"declared_modality": image.modality, "modality": segmentation.modality}
    if segmentation.probabilities is not None:
        likely = int(segmentation.probabilities[k].argmax())
        predicted, probability = MODALITIES[likely], float(segmentation.probabilities[k, likely])
        entry |= {"predicted_modality": predicted, "probability": round(probability, 4)}
        if image.modality not in (None, predicted) and probability >= SURE:
            entry["warning"] = f"declared {image.modality}, but it looks like {predicted} ({probability:.0%})"
    return entry


def _counts(segmentation: Segmentation, boxes: int) -> list[int]:
    """Count the pixels of each box, as the mask files show them."""
    if segmentation.masks is not None:
        return [segmentation.masks.area(k) for k in range(boxes)]
    rows = segmentation.labels.reshape(-1, segmentation.labels.shape[-1])
    counts = np.zeros(boxes + 1, np.int64)
    for part in range(0, len(rows), 1024):  # bincount makes int64 of what it counts
        counts += np.bincount(rows[part : part + 1024].ravel(), minlength=boxes + 1)
    return counts[1:].tolist()
