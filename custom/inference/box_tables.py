"""Lists of many images with their boxes: CSV with one row per box, or JSON with one entry per image."""

from __future__ import annotations

import csv
import difflib
import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from custom.errors import InputError
from custom.inference.box_input import BoxInput
from custom.inference.click_input import ClickInput
from custom.json_files import read_json
from custom.modalities import canonical_modality

#: How a JSON list is written, for errors.
JSON_LIST = '[{"image": "a.png", "boxes": [[x_min, y_min, x_max, y_max]], "modality": "US"}, ...]'
_KEYS = ("image", "boxes", "modality", "names", "slice", "points", "point_labels", "mask")
_TEXT_TABLES = (".csv", ".tsv")
_REQUIRED = ("image", "x_min", "y_min", "x_max", "y_max")
_LONGEST_HEADER = 2**16
_COLUMNS = ("image", "x_min", "y_min", "z_min", "x_max", "y_max", "z_max", "slice", "modality", "name")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An image of a list.

    Attributes:
        path: image file, or folder of a DICOM series.
        boxes: not placed in the image yet; None if the image file has them (npz), or if there are clicks.
        clicks: clicks and a mask to correct, not placed in the image yet, or None.
        modality: as the user gives it, or None.
        names: names of the objects, or None; their number is checked if that of the boxes is known.
    """

    path: str
    boxes: BoxInput | None = None
    clicks: ClickInput | None = None
    modality: Any = None
    names: tuple[str, ...] | None = None


def is_table(path: object) -> bool:
    """Return whether a path is a list of images: CSV, or JSON that is a list."""
    if not isinstance(path, (str, os.PathLike)) or not os.path.isfile(path):
        return False
    ending = Path(path).suffix.lower()
    return ending in _TEXT_TABLES or (ending == ".json" and isinstance(read_json(path, JSON_LIST, field="list"), list))


def read_table(path: Path, *, world: bool = False, margin: int = 0) -> list[Entry]:
    """Read a list of images with their boxes.

    CSV has the columns image, x_min, y_min, x_max and y_max, and optionally z_min, z_max, slice, modality and name,
    in any order. A row is a box; all rows of one image are one entry. Separators are commas, semicolons or tabs.
    Errors count rows as a spreadsheet does: the header is row 1. JSON is a list of objects with the keys image,
    boxes (anything ``BoxInput.parse`` accepts; files relative to the list), modality, names, slice, and points,
    point_labels and mask (as for ``ClickInput.parse``). Only JSON holds clicks and masks.

    Args:
        path: the list.
        world: its numbers are mm.
        margin: pixels by which the boxes of its mask files grow.

    Raises:
        InputError: the list cannot be read, or a row or entry is malformed.
    """
    if path.suffix.lower() in _TEXT_TABLES:
        return _read_csv(path, world, margin)
    entries = read_json(path, JSON_LIST, field="list")
    if not isinstance(entries, list) or not entries:
        raise InputError(path, "list", f"{type(entries).__name__} {str(entries)[:40]}", JSON_LIST)
    return [_entry(entry, path, n, world, margin) for n, entry in enumerate(entries)]


def parse_names(value: object, source: str, boxes: BoxInput | None = None) -> tuple[str, ...] | None:
    """Parse names of objects: a text with commas, a list of names, or None.

    Args:
        value: the names.
        source: where it comes from, for the error.
        boxes: the boxes of the objects; their number is checked if it is known.

    Raises:
        InputError: an empty name, or a different number of names than boxes.
    """
    if value is None:
        return None
    given = value.split(",") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
    names = tuple(str(name).strip() for name in given)
    if not names or not all(names):
        raise InputError(source, "names", repr(value)[:80], 'a name for each box, e.g. "tumor,liver"')
    count = None if boxes is None else boxes.count
    if count not in (None, len(names)):
        raise InputError(source, "names", f"{len(names)} names for {count} boxes", "a name for each box")
    return names


def _entry(entry: Any, path: Path, n: int, world: bool, margin: int) -> Entry:
    if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
        raise InputError(path, f"[{n}]", str(entry)[:80], JSON_LIST)
    unknown = [key for key in entry if key not in _KEYS]
    if unknown:
        raise InputError(path, f"[{n}]", f"the key {unknown[0]!r}", _with_nearest(unknown[0], _KEYS))
    source, boxes, slices = f"{path}: [{n}]", None, entry.get("slice")
    if entry.get("boxes") is not None:
        given = entry["boxes"]
        boxes = BoxInput.parse(given, world=world, margin=margin, slices=slices, folder=path.parent, source=source)
    elif slices is not None:
        raise InputError(source, "slice", repr(slices)[:80], "no slice without boxes")
    points, *others = (entry.get(key) for key in ("points", "point_labels", "mask"))
    in_mm = world and points is not None
    clicks = ClickInput.parse(points, *others, world=in_mm, folder=path.parent, source=source)
    return Entry(
        path=entry["image"],
        boxes=boxes,
        clicks=clicks,
        modality=_modality(entry.get("modality"), source),
        names=parse_names(entry.get("names"), source, boxes),
    )


def _read_csv(path: Path, world: bool, margin: int) -> list[Entry]:
    header, *lines = _lines(path)
    columns = _columns(header, path)
    rows: dict[str, list[tuple[int, dict[str, str]]]] = {}
    for number, cells in enumerate(lines, 2):
        if len(cells) > len(columns):
            raise InputError(path, f"row {number}", f"{len(cells)} cells", f"{len(columns)}: {', '.join(columns)}")
        if not cells:
            continue
        row = dict.fromkeys(_COLUMNS, "") | dict(zip(columns, cells, strict=False))
        if not row["image"]:
            raise InputError(path, f"row {number}: image", "nothing", "the path of an image")
        rows.setdefault(os.path.normpath(row["image"]), []).append((number, row))
    if not rows:
        raise InputError(path, "list", "no row", f"a row for each box with {', '.join(columns)}")
    return [_joined(image, found, path, world, margin) for image, found in rows.items()]


def _lines(path: Path) -> list[list[str]]:
    """Return the cells of every line, the header first; spreadsheets may write a byte order mark and semicolons."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = file.readline(_LONGEST_HEADER)
            delimiter = max(",;\t", key=header.count)
            lines = itertools.chain([header], file)
            return [_stripped(cells) for cells in csv.reader(lines, delimiter=delimiter)]
    except (OSError, ValueError, csv.Error) as error:
        allowed = f"CSV in UTF-8 with the columns {', '.join(_REQUIRED)}"
        raise InputError(path, "list", str(error), allowed) from error


def _stripped(cells: Sequence[str]) -> list[str]:
    """Strip cells and drop the empty ones at the end, which spreadsheets add."""
    kept = [cell.strip() for cell in cells]
    while kept and not kept[-1]:
        kept.pop()
    return kept


def _columns(header: Sequence[str], path: Path) -> list[str]:
    columns = [cell.lower() for cell in header]
    for column in columns:
        if column not in _COLUMNS:
            raise InputError(path, "row 1", f"the column {column!r}", _with_nearest(column, _COLUMNS))
    twice = [column for n, column in enumerate(columns) if column in columns[:n]]
    if twice:
        raise InputError(path, "row 1", f"the column {twice[0]!r} twice", "each column once")
    missing = [column for column in _REQUIRED if column not in columns]
    if missing or ("z_min" in columns) != ("z_max" in columns):
        allowed = f"{', '.join(_REQUIRED)}; z_min and z_max together"
        raise InputError(path, "row 1", f"the columns {', '.join(columns)}", allowed)
    return columns


def _joined(image: str, rows: Sequence[tuple[int, Mapping[str, str]]], path: Path, world: bool, margin: int) -> Entry:
    """Join the rows of one image, each checked on its own first, so that an error names its row."""
    boxes, slices, names, modalities = [], [], [], set()
    for number, row in rows:
        source = f"{path}: row {number}"
        ends = [name for name in _COLUMNS[1:7] if row[name] or name[0] != "z"]
        box = [_number(row[name], f"row {number}: {name}", path) for name in ends]
        k = _whole(row["slice"], f"row {number}: slice", path) if row["slice"] else None
        if len(box) == 5:
            raise InputError(path, f"row {number}", "one of z_min and z_max", "both or neither")
        BoxInput.parse(box, world=world, margin=margin, slices=k, source=source)
        if boxes and (len(box) != len(boxes[0]) or (k is None) != (slices[0] is None)):
            allowed = f"z, slice or neither in all rows of {image}"
            raise InputError(path, f"row {number}", "a different kind of box than before", allowed)
        boxes.append(box)
        slices.append(k)
        names.append(row["name"])
        modalities |= {_modality(row["modality"], source)} - {None}
        if len(modalities) > 1:
            raise InputError(path, f"row {number}: modality", row["modality"], f"one modality for {image}")
    return Entry(
        path=image,
        boxes=BoxInput.parse(boxes, world=world, slices=None if slices[0] is None else slices, source=str(path)),
        modality=next(iter(modalities), None),
        names=tuple(name or f"box {n}" for n, name in enumerate(names, 1)) if any(names) else None,
    )


def _number(text: str, field: str, path: Path) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(path, field, repr(text), "a number") from None


def _whole(text: str, field: str, path: Path) -> int:
    number = _number(text, field, path)
    if not number.is_integer():  # also False for NaN and infinity
        raise InputError(path, field, repr(text), "a whole number")
    return int(number)


def _modality(value: object, source: str) -> str | None:
    return canonical_modality(str(value), source) if value not in (None, "") else None


def _with_nearest(name: object, allowed: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(name).lower(), allowed, 1)
    return f"{', '.join(allowed)}{f'; did you mean {near[0]}?' if near else ''}"
