"""Convert one case from its source to array files, in a worker process."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from custom.atomic_write import write_whole
from custom.errors import InputError
from custom.images.intensity import WINDOWS, Window, to_uint8
from data_prep.masks import TooSmallError, clean_masks, slice_index
from data_prep.readers.base import Case, Reader, Source, check_shape

ARRAYS = "arrays"
AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """The options for every case.

    Args:
        window: window for CT that is not uint8 yet.
        components: split masks into connected components. True: those of pictures and volumes; ``"auto"``: of
            pictures only; False: none. Maps whose ids are single objects are never split.
        min_size: masks with fewer pixels or voxels are dropped.
        suv_max: upper end of the range of a PET in SUV; None uses the percentiles.
        max_masks: list at most this number of masks of a slice, the largest; None lists all.

    Raises:
        InputError: a value that is not allowed.
    """

    window: Window = WINDOWS["soft_tissue"]
    components: bool | str = AUTO
    min_size: int = 16
    suv_max: float | None = None
    max_masks: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.components, bool) and self.components != AUTO:
            raise InputError("arguments", "components", repr(self.components), "auto, True, False")
        whole_number("min_size", self.min_size, 1)
        if self.max_masks is not None:
            whole_number("max_masks", self.max_masks, 1)
        if self.suv_max is not None and not (_is_number(self.suv_max) and 0 < self.suv_max < math.inf):
            raise InputError("arguments", "suv_max", repr(self.suv_max), "a positive number")

    def split(self, case: Case) -> bool:
        """Return whether the masks of a case are split into components."""
        wanted = case.image.kind == "picture" if self.components == AUTO else bool(self.components)
        return wanted and not case.instance


@dataclass(frozen=True)
class Outcome:
    """The outcome for one source.

    Attributes:
        case: name of the source.
        split: ``"train"`` or ``"val"`` if the source gives one, else None; None if nothing was written.
        record: the entry of ``dataset.json``; None if nothing was written.
        problem: why nothing was written.
        failed: the problem is an error, not the effect of ``min_size``.
        size: bytes written.
        fingerprint: identifies everything the outcome depends on; see :mod:`data_prep.journal`.
    """

    case: str
    split: str | None = None
    record: dict[str, Any] | None = None
    problem: str = ""
    failed: bool = False
    size: int = 0
    fingerprint: str = ""


def prepare_case(source: Source, reader: Reader, out: Path, options: PrepareOptions) -> Outcome:
    """Load one source, convert it and write its two arrays below ``out / "arrays"``.

    Bad input is reported in the outcome.

    Raises:
        OSError: the arrays cannot be written.
    """
    try:
        case = _load(source, reader)
        path, spacing = case.image.path, case.image.spacing
        array = to_uint8(case.image.array, case.modality, options.window, path, suv_max=options.suv_max)
        check_shape(case.label.shape, case.image, case.label_file)
        if spacing is not None and not all(0 < step < math.inf for step in spacing):
            raise InputError(path, "spacing", spacing, "positive numbers")
        masks = clean_masks(
            case.label, case.names, split=options.split(case), min_size=options.min_size, source=case.label_file
        )
    except TooSmallError as problem:
        return Outcome(source.name, problem=str(problem))
    except InputError as problem:
        return Outcome(source.name, problem=str(problem), failed=True)
    array = np.ascontiguousarray(array)
    record = _record(case, array, masks.label, masks.names, options.max_masks)
    size = write_array(out / record["image"], array) + write_array(out / record["label"], masks.label)
    return Outcome(source.name, case.split, record, size=size)


def write_array(path: Path, array: np.ndarray) -> int:
    """Write a ``.npy`` file whole or not at all and return its size in bytes.

    It does not wait for the disk: the journal would notice a loss, and ``prepare`` waits once for all arrays.
    """
    array = np.ascontiguousarray(array)
    # numpy writes directly to a system file, and then its errors do not give the reason.
    return write_whole(
        path, lambda file: np.save(SimpleNamespace(write=file.write), array, allow_pickle=False), durable=False
    )


def image_digest(image: np.ndarray) -> str:
    """Return 16 hexadecimal digits that are equal only for equal images (SHA-256 of the shape and the bytes)."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(image)
    return digest.hexdigest()[:16]


def whole_number(name: str, value: Any, least: int) -> int:
    """Return an option's value if it is a whole number of at least ``least``.

    Raises:
        InputError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError("arguments", name, repr(value), f"a whole number of at least {least}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _load(source: Source, reader: Reader) -> Case:
    """Load a case; any error of a reader concerns this case only, and must not stop the others."""
    if source.error is not None:
        raise source.error
    try:
        return reader.load(source)
    except InputError:
        raise
    except Exception as error:
        place = source.files[0] if source.files else source.name
        text = " ".join(str(error).split())[:200]
        raise InputError(place, "case", f"{type(error).__name__} ({text})", "a case that can be read") from error


def _record(
    case: Case, array: np.ndarray, label: np.ndarray, names: dict[int, str], max_masks: int | None
) -> dict[str, Any]:
    image = case.image
    record = {
        "case": case.name,
        "modality": case.modality,
        "dataset": case.dataset,
        "dimension": 2 if image.kind == "picture" else 3,
        "image": f"{ARRAYS}/{case.name}.image.npy",
        "label": f"{ARRAYS}/{case.name}.label.npy",
        "shape": list(label.shape),
        "channels": 3 if array.ndim == 4 else 1,
        "spacing": None if image.spacing is None else list(image.spacing),
        "labels": {str(i): name for i, name in names.items()},
        "slices": slice_index(label, max_masks=max_masks),
        **case.meta,
        "digest": image_digest(array),
    }
    return record if image.geometry is None else record | {"geometry": image.geometry.to_json()}
