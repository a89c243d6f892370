"""Reader of COCO annotations: one JSON file for a folder of pictures, objects as polygons or run lengths."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from custom.atomic_write import is_inside
from custom.errors import InputError
from custom.json_files import read_json
from custom.limits import OUTLINE
from custom.modalities import canonical_modality
from data_prep.masks import paint
from data_prep.readers.base import TRAIN, VALIDATION, Case, Reader, Source, check_shape, read_raw, safe_name

_SPLITS = {"train": TRAIN, "training": TRAIN, "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION}
_SEGMENTATION = "polygons, or run lengths with size and counts"
_LONGEST_RUN = 64  # bits of a number in packed text


class CocoReader(Reader):
    """Read pictures with COCO annotations; every annotation is one object, and its category is its name.

    Where objects overlap, the smaller one lies on top. Crowd annotations (``iscrowd``) do not mark a single object and
    are ignored; pictures without any other annotation have no foreground and are not listed.

    Args:
        src: folder of the pictures. A ``file_name`` is first looked for in a sub-folder of ``src`` or ``src/images``
            that is named like the end of the annotation file (``instances_train2017.json``: ``train2017``), then in
            ``src`` and ``src/images``, and last beside the annotation file.
        modality: the modality of all pictures.
        annotations: annotation file, as a path or relative to ``src``. By default the ``.json`` file in ``src`` or
            ``src/annotations``; if there are several, the one with ``train`` and the one with ``val`` as a word of its
            name, which give the split.

    Raises:
        InputError: the folder is missing, the modality is unknown, or the annotation file is missing or is one of
            several.
    """

    def __init__(self, src: str | Path, *, modality: str, annotations: str | Path | None = None) -> None:
        self.use_folder(src, "a folder of pictures with COCO annotations")
        self.modality = canonical_modality(modality, "arguments")
        self.annotations = _find_annotations(self.src, annotations)

    def sources(self) -> list[Source]:
        """List the pictures with annotations, in the order of the annotation files.

        ``entry`` holds a picture's own annotations, so the annotation file is not in ``files``: when it changes, only
        the pictures whose annotations changed are prepared again.
        """
        found = [source for path, split in self.annotations.items() for source in self._list(path, split)]
        if not found:
            files = ", ".join(map(str, self.annotations))
            raise InputError(files, "annotations", "no picture with an object", "annotations that are not crowds")
        return found

    def load(self, source: Source) -> Case:
        """Load one picture and paint its objects."""
        entry, file = source.entry, source.entry["where"]["file"]
        image = read_raw(entry["image"])
        if len(image.array) != 1:
            raise InputError(entry["image"], "pages", len(image.array), "one page")
        size, label_file = tuple(entry["size"]), f"{file} ({Path(entry['image']).name})"
        check_shape((1, *size), image, label_file, "height and width")
        places = [f"{file}: annotations[{number}]" for number in entry["where"]["annotations"]]
        objects = (_pixels(o["segmentation"], size, place) for o, place in zip(entry["objects"], places, strict=True))
        columns = paint(objects, (1, *size[::-1]), file)
        return Case(
            name=source.name,
            modality=self.modality,
            dataset=self.name,
            split=entry["split"],
            image=image,
            label=np.ascontiguousarray(columns.transpose(0, 2, 1)),  # 1xWxH -> 1xHxW
            label_file=label_file,
            names={k: o["name"] for k, o in enumerate(entry["objects"], 1)},
            instance=True,
        )

    def _list(self, path: Path, split: str | None) -> Iterator[Source]:
        index = _read_index(path)
        objects, problems = _objects(index, path)
        part = re.split(r"[^A-Za-z0-9]+", path.stem)[-1]
        roots = [self.src, self.src / "images"]
        folders = [*(root / part for root in roots if part), *roots, path.parent]
        names, seen = set(), set()
        for number, image in enumerate(index["images"]):
            try:
                key = image.get("id") if isinstance(image, dict) else None
                if not _is_id(key) or key in seen:
                    raise InputError(path, f"images[{number}].id", repr(key), "a unique id")
                seen.add(key)
                if key not in objects and key not in problems:
                    continue
                if key in problems:
                    raise problems[key]
                file, size = _image_file(image, path, number, folders)
                stem = Path(image["file_name"]).with_suffix("").as_posix()
                name = safe_name(self.modality, self.name, split, stem)
                if name in names:
                    raise InputError(path, f"images[{number}].file_name", image["file_name"], "a unique name")
            except InputError as error:
                yield Source(f"{path}: images[{number}]", error=error)
                continue
            names.add(name)
            entry = {
                "image": str(file),
                "size": size,
                "objects": [item for _, item in objects[key]],
                "split": split,
                "where": {"file": str(path), "annotations": [number for number, _ in objects[key]]},
            }
            yield Source(name, entry, (str(file),))
        lost = [key for key in dict.fromkeys([*objects, *problems]) if key not in seen]
        if lost:
            found = f"{', '.join(map(repr, lost[:5]))} ({len(lost)} in total)"
            yield Source(f"{path}: annotations", error=InputError(path, "annotations.image_id", found, "ids of images"))


def _find_annotations(src: Path, given: str | Path | None) -> dict[Path, str | None]:
    """Return annotation file -> split."""
    if given is not None:
        for path in (src / str(given), Path(str(given))):
            if path.is_file():
                return {path: None}
        raise InputError("arguments", "annotations", f"no file {given}", f"a path, or one relative to {src}")
    found = [path for folder in (src, src / "annotations") for path in sorted(folder.glob("[!.]*.json"))]
    if len(found) == 1:
        return {found[0]: None}  # a single file: its name does not give a split
    if not found:
        raise InputError(src, "annotations", "no .json file", f"one in {src} or {src / 'annotations'}")
    parts = {}
    for path in found:
        splits = {_SPLITS[word] for word in re.findall(r"[a-z]+", path.stem.lower()) if word in _SPLITS}
        if len(splits) == 1:
            parts[path] = splits.pop()
    if sorted(parts.values()) != [TRAIN, VALIDATION]:
        listed = ", ".join(path.relative_to(src).as_posix() for path in found)
        allowed = "one .json file, one each for train and val, or --annotations FILE"
        raise InputError(src, "annotations", listed, allowed)
    return parts


def _read_index(path: Path) -> dict[str, Any]:
    index = read_json(path, "COCO annotations", constant=lambda _: None)
    for key in ("images", "annotations", "categories"):
        if not isinstance(index, dict) or not isinstance(index.get(key), list):
            raise InputError(path, key, "no list", "an object with the lists images, annotations and categories")
    return index


def _objects(index: Mapping[str, Any], path: Path) -> tuple[dict[Any, list[tuple[int, dict]]], dict[Any, InputError]]:
    """Return image id -> its annotations with their numbers, and image id -> the first problem of any of them.

    An annotation without a usable image id goes to the id None.
    """
    names = _categories(index["categories"], path)
    objects: dict[Any, list[tuple[int, dict]]] = {}
    problems: dict[Any, InputError] = {}
    for number, annotation in enumerate(index["annotations"]):
        annotation = annotation if isinstance(annotation, dict) else {}
        key, category = annotation.get("image_id"), annotation.get("category_id")
        if annotation.get("iscrowd"):
            continue
        if _is_id(category) and category in names:
            item = {"name": names[category], "segmentation": annotation.get("segmentation")}
            objects.setdefault(key if _is_id(key) else None, []).append((number, item))
        else:
            allowed = ", ".join(map(str, list(names)[:20]))
            error = InputError(path, f"annotations[{number}].category_id", repr(category), allowed)
            problems.setdefault(key if _is_id(key) else None, error)
    return objects, problems


def _categories(categories: Sequence[Any], path: Path) -> dict[Any, str]:
    names = {}
    for number, category in enumerate(categories):
        key, name = (category.get("id"), category.get("name")) if isinstance(category, dict) else (None, None)
        if not _is_id(key) or not isinstance(name, str) or not name:
            raise InputError(path, f"categories[{number}]", repr(category), "an object with id and name")
        names[key] = name
    return names


def _is_id(key: Any) -> bool:
    return isinstance(key, (int, float, str)) and not isinstance(key, bool)


def _image_file(image: Mapping[str, Any], path: Path, number: int, folders: Sequence[Path]) -> tuple[Path, list[int]]:
    """Return the file of an entry of ``images`` and its height and width."""
    where = f"images[{number}]"
    name, size = image.get("file_name"), [image.get("height"), image.get("width")]
    if not isinstance(name, str) or not name:
        raise InputError(path, f"{where}.file_name", repr(name), "the name of a picture")
    if not all(isinstance(n, int) and n > 0 for n in size):
        raise InputError(path, f"{where} height and width", size, "two whole numbers above 0")
    for folder in folders:
        inside = any(is_inside(folder / name, root) for root in folders)
        if inside and os.path.isfile(folder / name):  # also False for what cannot be a file name
            return folder / name, size
    raise InputError(path, f"{where}.file_name", repr(name), f"a file in {', '.join(map(str, folders))}")


def _pixels(segmentation: Any, size: tuple[int, int], where: str) -> np.ndarray:
    """Return the flat indices of an object's pixels, counted down the columns; ``size`` is height and width."""
    if isinstance(segmentation, dict):
        runs = _checked_runs(segmentation, size, where)
    elif isinstance(segmentation, list) and segmentation:
        polygons = [_checked_polygon(points, size, where) for points in segmentation]
        packed = coco_mask.merge(coco_mask.frPyObjects(polygons, *size))
        runs = _unpack(packed["counts"].decode("ascii"), where)
    else:
        raise InputError(where, "segmentation", repr(segmentation)[:80], _SEGMENTATION)
    lengths = np.asarray(runs[1::2], dtype=np.intp)  # of background and object in turn
    starts = np.cumsum(runs)[::2][: len(lengths)]
    before = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(starts - before, lengths)


def _checked_polygon(points: Any, size: tuple[int, int], where: str) -> list[float]:
    try:
        array = np.asarray(points, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.empty((0, 0))
    if array.ndim != 1 or len(array) % 2 or not np.isfinite(array).all():
        raise InputError(where, "segmentation", repr(points)[:80], "polygons [x, y, x, y, ...]")
    if len(array) < 6:
        raise InputError(where, "segmentation", f"a polygon of {len(array) // 2} points", "at least 3 points")
    limit = np.tile(size[::-1], len(array) // 2)
    if (array < -limit).any() or (array > 2 * limit).any():  # the outline would be drawn pixel by pixel, however long
        outermost = float(array[np.abs(array).argmax()])
        raise InputError(where, "segmentation", f"the coordinate {outermost:g}", f"points in {size[1]} x {size[0]}")
    points = array.reshape(-1, 2)
    steps = np.abs(np.roll(points, -1, axis=0) - points).max(axis=1)
    OUTLINE.check(int(steps.sum()), where, "segmentation")
    return array.tolist()


def _checked_runs(segmentation: Mapping[str, Any], size: tuple[int, int], where: str) -> list[int]:
    """Return run lengths that fill the picture exactly."""
    counts = segmentation.get("counts")
    if segmentation.get("size") != list(size):
        raise InputError(where, "segmentation.size", segmentation.get("size"), f"the picture's {list(size)}")
    runs = _unpack(counts, where) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(type(run) is int and run >= 0 for run in runs):
        raise InputError(where, "segmentation.counts", repr(counts)[:80], "whole numbers from 0 up, or packed text")
    if sum(runs) != size[0] * size[1]:
        found = f"runs of {sum(runs)} pixels"
        raise InputError(where, "segmentation.counts", found, f"{size[0] * size[1]} pixels, height times width")
    return runs


def _unpack(text: str, where: str) -> list[int]:
    """Return the run lengths of COCO's packed text.

    A character is six bits, counted from "0": five bits of a number in two's complement, lowest first, and one that is
    set if more follow. From the fourth number on, a number is the difference to the number two before.
    """
    runs: list[int] = []
    value = bits = 0
    for character in text:
        code = ord(character) - ord("0")
        if not 0 <= code < 64:
            raise InputError(where, "segmentation.counts", repr(character), 'characters from "0" to "o"')
        if bits > _LONGEST_RUN:
            raise InputError(where, "segmentation.counts", f"a number of {bits} bits", f"at most {_LONGEST_RUN} bits")
        value |= (code & 31) << bits
        bits += 5
        if not code & 32:
            value -= (code >> 4) << bits
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = bits = 0
    if bits:
        raise InputError(where, "segmentation.counts", "packed text that is cut off", "whole numbers")
    return runs
