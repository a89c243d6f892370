"""The images of one run with their boxes: one file, a folder, or a CSV or JSON list."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from custom.atomic_write import files_below
from custom.errors import InputError
from custom.images.formats import endings, formats, has_ending, image_files, kinds, stem
from custom.inference.box_input import BoxInput
from custom.inference.box_tables import Entry, is_table, parse_names, read_table
from custom.inference.click_input import ClickInput

logger = logging.getLogger(__name__)

_REPORT = re.compile(r"report_\d+")  # ``segment_cases`` writes files of these names
#: Increase it when the same input gives different results than before.
_RESULT_VERSION = 3
#: Bytes of a result's name; a file system allows 255.
_LONGEST_NAME = 200


@dataclass(frozen=True, kw_only=True)
class Case(Entry):
    """An image to segment.

    Attributes:
        name: name of its results, unique in a run.
    """

    name: str

    @property
    def prompt_files(self) -> tuple[str, ...]:
        """The files that boxes and masks are read from."""
        return tuple(file for given in (self.boxes, self.clicks) if given is not None for file in given.files)


def list_cases(
    source: str | Path,
    *,
    boxes: object = None,
    modality: object = None,
    names: object = None,
    slices: object = None,
    world: bool = False,
    margin: int = 0,
    points: object = None,
    point_labels: object = None,
    mask: object = None,
) -> tuple[list[Case], bool]:
    """List the images to segment.

    A CSV or JSON file is a list of images; see ``read_table``. A folder with images has a case for each of them and for
    each file with a DICOM name, without sub-folders. Any other folder is one DICOM series.

    Args:
        source: image, folder or list.
        boxes: see ``BoxInput.parse``, for one image or for every image of a folder; or for a folder a list,
            whose images lie in the folder or beside the list.
        modality: for images without one in the list.
        names: of objects, for images without names in the list: a text with commas, or a list of names.
        slices, world, margin: for boxes; see ``BoxInput.parse``. With ``world``, clicks are in mm, too.
        points, point_labels, mask: for one image or for every image of a folder; see ``ClickInput.parse``.

    Returns:
        The cases, and whether there may be several (a list or a folder of images).

    Raises:
        InputError: no such file, malformed boxes or lists, boxes beside a list, or an option without boxes.
    """
    path = Path(source)
    if not os.path.exists(path):  # also False for what cannot be a path
        raise InputError(source, "image", "no such file", f"{kinds()}; a folder of images, or a CSV or JSON list")
    listed = path.suffix.lower() in (".csv", ".tsv", ".json") and not path.is_dir()
    prompts = {"boxes": boxes, "points": points, "point_labels": point_labels, "mask": mask}
    for name in (name for name, value in prompts.items() if listed and value is not None):
        raise InputError("arguments", name, f"{name} for {source}", f"no {name}: the list has its own")
    if listed or is_table(boxes):
        if slices is not None:
            raise InputError("arguments", "slice", repr(slices), "no slice: the list has one for each box")
        if not listed and not path.is_dir():
            raise InputError("arguments", "boxes", f"the list {boxes} for one image", "a list with a folder of images")
        for name in ("points", "point_labels", "mask"):
            if prompts[name] is not None:
                raise InputError("arguments", name, f"{name} beside {boxes}", f"no {name}: the list has its own")
        table = path if listed else Path(str(boxes))
        entries = read_table(table, world=world, margin=margin)
        return _listed(entries, table, table.parent if listed else path, modality, names), True
    clicks = ClickInput.parse(points, point_labels, mask, world=world and points is not None)
    alone = {"slice": slices, "world": (points is None and world) or None, "margin": margin or None}
    if boxes is None and (name := next((name for name, value in alone.items() if value is not None), None)):
        raise InputError("arguments", name, alone[name], f"no {name} without boxes")
    given = None if boxes is None else BoxInput.parse(boxes, world=world, margin=margin, slices=slices)
    titles = parse_names(names, "arguments", given)
    images = [str(file) for file in _images(path)] if path.is_dir() else []
    if images and given is clicks is None and not any(has_ending(image, formats()["npz"].ENDINGS) for image in images):
        allowed = "--boxes with boxes for each of them, or with a CSV or JSON list; only npz files have their own"
        raise InputError(source, "boxes", f"no boxes for {len(images)} images", allowed)
    found = zip(_names(images), images, strict=True) if images else [(_short(stem(path)), str(source))]
    shared = {"boxes": given, "clicks": clicks, "modality": modality, "names": titles}
    cases = [Case(name=name, path=place, **shared) for name, place in found]
    return cases, bool(images)


def case_fingerprint(case: Case, facts: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits that change with anything the results of a case depend on.

    That is: name, size and modification time of its files and of those of its boxes and masks, its boxes and clicks,
    their names and the modality, and the facts of the run, JSON values: the options and the network.
    """
    boxes = None if case.boxes is None else case.boxes.description
    states = [_states(Path(path)) for path in (case.path, *case.prompt_files)]
    content = [_RESULT_VERSION, states, boxes, case.modality, case.names, dict(facts)]
    if case.clicks is not None:
        content.append(case.clicks.description)
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _listed(entries: Sequence[Entry], table: Path, folder: Path, modality: object, names: object) -> list[Case]:
    """Return the cases of a list; modality and names are for entries without their own."""
    places = [_place(entry.path, folder, table.parent) for entry in entries]
    return [
        Case(
            name=name,
            path=place,
            boxes=entry.boxes,
            clicks=entry.clicks,
            modality=entry.modality or modality,
            names=entry.names or parse_names(names, f"{table}: {entry.path}", entry.boxes),
        )
        for name, place, entry in zip(_names(places), places, entries, strict=True)
    ]


def _place(image: str, folder: Path, beside: Path) -> str:
    """Return where an image of a list is: in the folder, or else beside the list."""
    first, second = str(folder / image), str(beside / image)
    return second if not os.path.exists(first) and os.path.exists(second) else first


def _images(folder: Path) -> list[Path]:
    """Return the image files directly in a folder; an empty list if all are DICOM."""
    images = image_files(folder)
    if all(has_ending(path, formats()["dicom"].ENDINGS) for path in images):
        return []
    others = sum(not path.name.startswith(".") and not has_ending(path, endings()) for path in folder.iterdir())
    if others:
        logger.warning("%s: %d files of other kinds are skipped", folder, others)
    return images


def _names(paths: Sequence[str]) -> list[str]:
    """Name results after their files; equal names get the path from the common folder, or else a number."""
    stems = [stem(path) for path in paths]
    counts = Counter(name.lower() for name in stems)  # a file system may treat "A" and "a" as one
    root = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    names: list[str] = []
    used: set[str] = set()
    for path, short in zip(paths, stems, strict=True):
        long = "_".join(Path(os.path.relpath(path, root)).parts)
        name = free = _short(short if counts[short.lower()] == 1 else long)
        number = 1
        while free.lower() in used or _REPORT.fullmatch(free.lower()):
            number += 1
            free = f"{name}_{number}"
        names.append(free)
        used.add(free.lower())
    return names


def _short(name: str) -> str:
    """Cut a name that would be too long for a file with its endings, and make it unique by a digest.

    What cannot name a file (``/``, ``..``) becomes "case".
    """
    if not name.strip("."):
        return "case"
    encoded = name.encode("utf-8", "surrogatepass")
    if len(encoded) <= _LONGEST_NAME:
        return name
    digits = hashlib.sha256(encoded).hexdigest()[:8]
    kept = encoded[: _LONGEST_NAME - 9].decode(errors="ignore")
    return f"{kept}_{digits}"


def _states(path: Path) -> list[list[Any]]:
    """Return name, size and modification time of a file, or of the files below a folder."""
    files = sorted(map(Path, files_below(path))) if os.path.isdir(path) else [path]
    states = []
    for file in files:
        with suppress(OSError, ValueError):  # reading it reports the error; ValueError: not a possible path
            state = file.stat()
            states.append([file.name, state.st_size, state.st_mtime_ns])
    return states
