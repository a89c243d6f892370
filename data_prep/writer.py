"""One case from source to array files; this is what runs in the worker processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from custom.errors import InputError
from custom.files import write_whole
from data_prep.intensity import Window, to_uint8
from data_prep.masks import TooSmallError, clean_masks, slice_index
from data_prep.readers.base import Case, Reader, Source

ARRAYS = "arrays"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is done to every case.

    Attributes:
        window: window for CT that is not uint8 yet.
        components: split semantic masks of pictures into 8-connected components.
        min_size: masks with fewer pixels or voxels are dropped.
    """

    window: Window
    components: bool
    min_size: int


@dataclass(frozen=True)
class Outcome:
    """What became of one source.

    Attributes:
        split: ``"train"`` or ``"val"``; None when nothing was written.
        record: the entry of ``dataset.json``; None when nothing was written.
        size: bytes written.
        problem: why nothing was written.
        failed: the problem is an error, not the effect of ``min_size``.
    """

    split: str | None = None
    record: dict[str, Any] | None = None
    size: int = 0
    problem: str = ""
    failed: bool = False


def prepare_case(source: Source, reader: Reader, out: Path, options: Options) -> Outcome:
    """Load one source, convert it and write its two arrays below ``out / "arrays"``."""
    try:
        if source.error is not None:
            raise source.error
        case = reader.load(source)
        image = to_uint8(case.image, case.modality, options.window, case.image_file)
        if image.shape[:3] != case.label.shape:
            raise InputError(case.label_file, "label", f"shape {case.label.shape}", f"the image's {image.shape[:3]}")
        masks = clean_masks(
            case.label,
            case.names,
            split=options.components and case.dimension == 2 and not case.instance,
            min_size=options.min_size,
            source=case.label_file,
        )
    except TooSmallError as problem:
        return Outcome(problem=str(problem))
    except InputError as problem:
        return Outcome(problem=str(problem), failed=True)
    record = _record(case, image, masks.label, masks.names)
    size = write_array(out / record["image"], image) + write_array(out / record["label"], masks.label)
    return Outcome(case.split, record, size)


def write_array(path: Path, array: np.ndarray) -> int:
    """Write a ``.npy`` file in one step (a reader sees all of it or nothing) and return its size in bytes."""
    return write_whole(path, lambda file: np.save(file, np.ascontiguousarray(array), allow_pickle=False))


def _record(case: Case, image: np.ndarray, label: np.ndarray, names: dict[int, str]) -> dict[str, Any]:
    return {
        "case": case.name,
        "modality": case.modality,
        "dataset": case.dataset,
        "dimension": case.dimension,
        "image": f"{ARRAYS}/{case.name}.image.npy",
        "label": f"{ARRAYS}/{case.name}.label.npy",
        "shape": list(label.shape),
        "channels": 3 if image.ndim == 4 else 1,
        "spacing": None if case.spacing is None else list(case.spacing),
        "labels": {str(i): name for i, name in names.items()},
        "slices": slice_index(label),
        **case.meta,
    }
