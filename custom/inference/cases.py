"""The images of one run with their boxes: one file, a folder, or a JSON list."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from custom.errors import InputError
from custom.files import files_below
from custom.inference.sources import DICOM_ENDINGS, ENDINGS, KINDS, stem
from custom.json_files import read_json

logger = logging.getLogger(__name__)

_LIST = '[{"image": "a.png", "boxes": [[x_min, y_min, x_max, y_max]], "modality": "US"}, ...]'
_REPORT = re.compile(r"report_\d+")  # ``segment_cases`` writes files of these names
#: Raise it when the same input gives other results than before.
_RESULT_VERSION = 2
#: Bytes of a result's name; a file system allows 255.
_LONGEST_NAME = 200


@dataclass(frozen=True, kw_only=True)
class Case:
    """An image to segment.

    Attributes:
        name: of its results, different for every case of a run.
        path: image file, or folder of a DICOM series.
        boxes: as given, not checked; None where the image file itself has them (npz).
        modality: as given, not checked, or None.
    """

    name: str
    path: str
    boxes: Any = None
    modality: Any = None


def list_cases(source: str | Path, *, boxes: object = None, modality: object = None) -> tuple[list[Case], bool]:
    """List what there is to segment.

    A JSON file is a list of images, ``[{"image": path, "boxes": [...], "modality": optional}, ...]``, with paths
    relative to the file. A folder with pictures, NIfTI or npz files is a case for each of them and for each file that
    is called like DICOM; sub-folders are not looked into. Any other folder is one DICOM series.

    Args:
        source: image, folder or JSON list.
        boxes: the boxes of a single image.
        modality: the modality of all images that the list gives none.

    Returns:
        The cases, and whether there may be several: then ``source`` is a list or a folder of images.

    Raises:
        InputError: no such file, boxes for more than one image, an empty folder, or a malformed list.
    """
    path = Path(source)
    if not os.path.exists(path):  # False, too, for what can be no path
        raise InputError(source, "image", "no such file", f"{KINDS}; a folder of images, or a JSON list")
    if path.suffix.lower() == ".json":
        found = [(place, entry.get("boxes"), entry.get("modality")) for place, entry in _read_list(path)]
    elif path.is_dir() and (files := _images(path)):
        found = [(str(file), None, None) for file in files]
    else:
        return [Case(name=_short(stem(path)), path=str(source), boxes=boxes, modality=modality)], False
    if boxes is not None:
        raise InputError("arguments", "boxes", f"boxes for {source}", "boxes for one image; a JSON list for several")
    names = _names([place for place, _, _ in found])
    return [
        Case(name=name, path=place, boxes=own, modality=modality if told is None else told)
        for name, (place, own, told) in zip(names, found, strict=True)
    ], True


def fingerprint(case: Case, told: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits that change with anything the results of a case depend on.

    That is: name, size and modification time of its files, its boxes and modality, and what is ``told`` of the run:
    the options and the network.
    """
    content = [_RESULT_VERSION, _file_states(Path(case.path)), case.boxes, case.modality, dict(told)]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _images(folder: Path) -> list[Path]:
    """Return the image files directly in a folder; nothing where there are none but of DICOM."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    images = [path for path in files if path.name.lower().endswith(ENDINGS)]
    if all(path.name.lower().endswith(DICOM_ENDINGS) for path in images):
        return []
    if len(images) < len(files):
        logger.warning("%s: %d files of other kinds are passed over", folder, len(files) - len(images))
    return images


def _read_list(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the images and their entries."""
    entries = read_json(path, _LIST, field="list")
    if not isinstance(entries, list) or not entries:
        raise InputError(path, "list", f"{type(entries).__name__} {str(entries)[:40]}", _LIST)
    for n, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
            raise InputError(path, f"[{n}]", str(entry)[:80], _LIST)
        unknown = set(entry) - {"image", "boxes", "modality"}
        if unknown:
            raise InputError(path, f"[{n}]", f"the key {min(unknown)!r}", "image, boxes, modality")
    return [(str(path.parent / entry["image"]), entry) for entry in entries]


def _names(paths: Sequence[str]) -> list[str]:
    """Name results by their files; where names meet, by the path from the common folder, else with a number."""
    stems = [stem(path) for path in paths]
    counts = Counter(name.lower() for name in stems)  # a file system may take "A" and "a" for one
    root = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    names: list[str] = []
    used: set[str] = set()
    for path, short in zip(paths, stems, strict=True):
        long = "_".join(Path(os.path.relpath(path, root)).parts)
        name = short if counts[short.lower()] == 1 else long
        names.append(_free(_short(name), used))
        used.add(names[-1].lower())
    return names


def _short(name: str) -> str:
    """Cut a name that would be too long for a file once endings are added, and make it unique by a digest.

    What is no name of a file (``/``, ``..``) becomes "case".
    """
    if not name.strip("."):
        return "case"
    encoded = name.encode("utf-8", "surrogatepass")
    if len(encoded) <= _LONGEST_NAME:
        return name
    digits = hashlib.sha256(encoded).hexdigest()[:8]
    kept = encoded[: _LONGEST_NAME - 9].decode(errors="ignore")
    return f"{kept}_{digits}"


def _free(name: str, used: Collection[str]) -> str:
    number, free = 1, name
    while free.lower() in used or _REPORT.fullmatch(free.lower()):
        number += 1
        free = f"{name}_{number}"
    return free


def _file_states(path: Path) -> list[list[Any]]:
    files = sorted(map(Path, files_below(path))) if os.path.isdir(path) else [path]
    states = []
    for file in files:
        try:
            state = file.stat()
        except (OSError, ValueError):  # reading it will tell what is wrong; ValueError: what can be no path
            continue
        states.append([file.name, state.st_size, state.st_mtime_ns])
    return states
