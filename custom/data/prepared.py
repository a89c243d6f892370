"""Read a prepared data set: ``dataset.json`` and the arrays it lists, as ``python -m data_prep`` writes them."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from custom.atomic_write import is_inside
from custom.errors import InputError
from custom.json_files import read_json
from custom.modalities import MODALITIES

FORMAT = "mcp-medsam-prepared"
VERSION = 1
INDEX_NAME = "dataset.json"
_ALLOWED_SET = "a prepared dataset; `python -m data_prep demo` makes one"


@dataclass(frozen=True, kw_only=True)
class CaseRecord:
    """One case of a prepared set.

    Attributes:
        case: unique name.
        modality: one of ``custom.modalities.MODALITIES``.
        dataset: the data set it comes from.
        dimension: 2 for a picture, 3 for a volume.
        image: absolute path of a uint8 array, (Z, H, W) or (Z, H, W, 3); Z = 1 for a picture.
        label: absolute path of a uint8 or uint16 array, (Z, H, W); 0 is background.
        shape: (Z, H, W).
        channels: 1 or 3.
        spacing: (z, y, x) in mm, or None if unknown.
        labels: id in the label array -> name, for every id that occurs.
        slices: (z, ids on that slice) for the slices with foreground, z and ids ascending.
        patient: patient name, if known.
        license: licence text, if known.
        source: where the case was published, if known.
        geometry: source grid of a volume for ``custom.images.geometry.Geometry.from_json``, if known.
    """

    case: str
    modality: str
    dataset: str
    dimension: int
    image: Path
    label: Path
    shape: tuple[int, int, int]
    channels: int
    spacing: tuple[float, float, float] | None
    labels: Mapping[int, str]
    slices: tuple[tuple[int, tuple[int, ...]], ...]
    patient: str | None = None
    license: str | None = None
    source: str | None = None
    geometry: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class PreparedSet:
    """A prepared set: its folder, its modalities (in the order of ``MODALITIES``) and its cases."""

    root: Path
    modalities: tuple[str, ...]
    training: list[CaseRecord]
    validation: list[CaseRecord]


def load_dataset(dataset_dir: str | os.PathLike[str]) -> PreparedSet:
    """Load and check the index of a prepared set; no array is opened.

    Args:
        dataset_dir: folder with ``dataset.json``.

    Raises:
        InputError: the folder, its index or an array file is missing, the index has another format or version, a
            field is missing or cannot be used, or two cases have the same name.
    """
    root = Path(os.path.abspath(dataset_dir))
    index = _read_index(root)
    seen: set[str] = set()
    parts = {part: [_record(entry, root, part, n, seen) for n, entry in enumerate(index[part])] for part in _PARTS}
    present = {record.modality for records in parts.values() for record in records}
    return PreparedSet(root, tuple(m for m in MODALITIES if m in present), *parts.values())


def open_array(path: str | os.PathLike[str]) -> np.ndarray:
    """Open an array read-only as a memory map, without reading it.

    Raises:
        InputError: the file is missing or is not a plain ``.npy`` array.
    """
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # a corrupt header can fail anywhere in NumPy
        found = "no such file" if isinstance(error, FileNotFoundError) else " ".join(str(error).split())
        raise InputError(path, "array", found, "a .npy array of numbers") from error


def read_slice(path: str | os.PathLike[str], z: int) -> np.ndarray:
    """Read one slice of an array (Z, ...) from the disk in one go, and nothing beyond it.

    Otherwise the system would read ahead: megabytes for each slice that training draws at random.

    Raises:
        InputError: the file is missing or is not a plain ``.npy`` array.
    """
    array = open_array(path)
    size, memory = array[z].nbytes, array.base
    if hasattr(memory, "madvise"):  # not on Windows
        start = (array.offset + z * size) // mmap.PAGESIZE * mmap.PAGESIZE
        memory.madvise(mmap.MADV_RANDOM)
        memory.madvise(mmap.MADV_WILLNEED, start, min(size + mmap.PAGESIZE, len(memory) - start))
    return np.array(array[z])


_PARTS = ("training", "validation")


def _read_index(root: Path) -> dict[str, Any]:
    path = root / INDEX_NAME
    if not root.is_dir():
        raise InputError(root, "dataset_dir", "no such folder", _ALLOWED_SET)
    if not path.is_file():
        raise InputError(root, INDEX_NAME, "no such file", _ALLOWED_SET)
    index = read_json(path, _ALLOWED_SET)
    if not isinstance(index, dict):
        raise InputError(path, "file", type(index).__name__, _ALLOWED_SET)
    for key, wanted in (("format", FORMAT), ("version", VERSION)):
        if index.get(key) != wanted:
            raise InputError(path, key, repr(index.get(key)), repr(wanted))
    for part in _PARTS:
        if not isinstance(index.get(part), list):
            raise InputError(path, part, type(index.get(part)).__name__, "a list of cases")
    return index


def _record(entry: Any, root: Path, part: str, number: int, seen: set[str]) -> CaseRecord:
    path, place = root / INDEX_NAME, f"{part}[{number}]"
    try:
        name, modality = str(entry["case"]), entry["modality"]
        place = f"{part}[{number}] ({name})"
        spacing = entry["spacing"]
        record = CaseRecord(
            case=name,
            modality=modality,
            dataset=str(entry["dataset"]),
            dimension=int(entry["dimension"]),
            image=root / entry["image"],
            label=root / entry["label"],
            shape=_triple(entry["shape"], int),
            channels=int(entry["channels"]),
            spacing=None if spacing is None else _triple(spacing, float),
            labels={int(i): str(text) for i, text in entry["labels"].items()},
            slices=tuple((_int32(z), tuple(_int32(i) for i in ids)) for z, ids in entry["slices"]),
            **{key: entry.get(key) for key in ("patient", "license", "source", "geometry")},
        )
    except KeyError as error:
        raise InputError(path, f"{place}.{error.args[0]}", "nothing", "a value") from error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(
            path, place, f"a value that does not fit ({error})", "the fields of a prepared case"
        ) from error
    if modality not in MODALITIES:
        raise InputError(path, f"{place}.modality", repr(modality), ", ".join(MODALITIES))
    if name in seen:
        raise InputError(path, f"{place}.case", "a second case with that name", "unique names")
    seen.add(name)
    for key, file in (("image", record.image), ("label", record.label)):
        if not is_inside(file, root):
            raise InputError(path, f"{place}.{key}", file, "a file inside the folder of the set")
        if not os.path.isfile(file):
            raise InputError(path, f"{place}.{key}", f"no file {file}", "an array file that exists")
    return record


def _int32(value: Any) -> int:
    number = int(value)
    if not -(2**31) <= number < 2**31:  # the range of the mask tables
        raise ValueError(f"{number} beyond 32 bits")
    return number


def _triple(values: Any, kind: type) -> tuple:
    a, b, c = values
    return kind(a), kind(b), kind(c)
