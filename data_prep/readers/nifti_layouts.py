"""The layouts of data sets: nnU-Net v2, MSD, and plain folders."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from custom.atomic_write import is_inside
from custom.errors import InputError
from custom.images.formats import endings, has_ending, image_files, kinds, stem
from custom.json_files import read_json
from data_prep.readers.base import ALL_IDS, TRAIN, VALIDATION, is_id

INDEX = "dataset.json"
_ALLOWED = f"the layout of nnU-Net v2 or MSD with {INDEX}, or folders of images and labels"
_IMAGE_STEM = re.compile(r"(.+)_(\d{4})")
_LABEL_SUFFIX = re.compile(r"[._-](seg|label|mask|gt)$", re.IGNORECASE)  # 3D Slicer: a.seg.nrrd, a-label.nrrd
_COLOURS = (["r", "g", "b"], ["red", "green", "blue"])  # nnU-Net stores such channels in one picture
_NOT_LABELS = ("background", "ignore")  # nnU-Net's names for 0 and for voxels that are not annotated


@dataclass(frozen=True)
class Pair:
    """One case of a data set.

    Attributes:
        name: unique in its data set and split.
        images: one file per channel; a 4D file with all channels is repeated.
        label: the label file.
        split: ``"train"``, ``"val"``, or None if the data set gives none.
        error: why the case cannot be used.
    """

    name: str
    images: tuple[Path, ...] = ()
    label: Path = Path()
    split: str | None = None
    error: InputError | None = None


class Layout(ABC):
    """A data set with one of the layouts.

    Attributes:
        src: its folder.
        index: its ``dataset.json``.
        metadata: the content of that file; None if it has another layout.
        channels: name of each channel of an image; None if the data set names none (one channel).
        stacked: the channels are the volumes of one 4D file.
    """

    channels: Sequence[str] | None = None
    stacked = False

    def __init__(self, src: Path, metadata: Mapping[str, Any] | None = None) -> None:
        self.src, self.index, self.metadata = src, src / INDEX, metadata

    def label_names(self) -> dict[int | str, str]:
        """Return id -> name; ``"*"`` names every other id.

        Raises:
            InputError: they are malformed, or a name stands for several ids.
        """
        if self.metadata is None:
            return {ALL_IDS: "object"}
        labels = self.metadata.get("labels")
        if not isinstance(labels, dict):
            raise InputError(self.index, "labels", labels, "an object of names and ids")
        names: dict[int | str, str] = {}
        for key, value in labels.items():
            one = value[0] if isinstance(value, list) and len(value) == 1 else value
            if is_id(key) and isinstance(one, str):  # MSD: id -> name
                number, name = int(key), one
            elif is_id(str(one)):  # nnU-Net: name -> id
                number, name = int(one), key
            else:
                allowed = "one id; if a name stands for several, name the ids (names)"
                raise InputError(self.index, f"labels.{key}", value, allowed)
            if number and name.lower() not in _NOT_LABELS:
                names[number] = name
        if not names:
            raise InputError(self.index, "labels", labels, "at least one id above 0")
        return names

    @abstractmethod
    def pairs(self) -> Iterator[Pair]:
        """List the cases in a fixed order.

        Raises:
            InputError: a folder is missing.
        """


class NnUNetLayout(Layout):
    """``imagesTr/CASE_0000.nii.gz`` with one file per channel, and ``labelsTr/CASE.nii.gz``."""

    def __init__(self, src: Path, metadata: Mapping[str, Any]) -> None:
        super().__init__(src, metadata)
        self.images, self.labels = src / "imagesTr", src / "labelsTr"
        channels = _channels(metadata, "channel_names", self.index)
        self.channels = ["RGB"] if [name.lower() for name in channels] in _COLOURS else channels
        self.ending = metadata.get("file_ending")
        if self.ending not in endings():
            raise InputError(self.index, "file_ending", repr(self.ending), ", ".join(endings()))

    def pairs(self) -> Iterator[Pair]:
        """List the cases that have an image or a label."""
        images, cases = self._stems(self.images), set(self._stems(self.labels))
        for image in images:
            part = _IMAGE_STEM.fullmatch(image)
            if part:
                cases.add(part[1])
                continue
            name = f"{image}{self.ending}"
            yield Pair(name, error=InputError(self.images / name, "file name", name, f"CASE_0000{self.ending}"))
        for case in sorted(cases):
            names = [f"{case}_{channel:04d}{self.ending}" for channel in range(len(self.channels))]
            images, label = [self.images / name for name in names], self.labels / f"{case}{self.ending}"
            yield _pair(case, images, label)

    def _stems(self, folder: Path) -> list[str]:
        """List the files of a folder without their ending, and without the hidden files of archives made on a Mac."""
        names = sorted(path.name for path in _existing(folder).iterdir() if not path.name.startswith("."))
        return [name.removesuffix(self.ending) for name in names if name.endswith(self.ending)]


class DecathlonLayout(Layout):
    """Lists of image and label files in ``dataset.json``; an image of several modalities is 4D."""

    def __init__(self, src: Path, metadata: Mapping[str, Any]) -> None:
        super().__init__(src, metadata)
        self.channels = _channels(metadata, "modality", self.index)
        self.stacked = len(self.channels) > 1
        validation = metadata.get("validation")
        self._lists = {"training": TRAIN, "validation": VALIDATION} if validation else {"training": None}
        for key in self._lists:
            if not isinstance(metadata[key], list):
                raise InputError(self.index, key, type(metadata[key]).__name__, "a list of image and label files")

    def pairs(self) -> Iterator[Pair]:
        """List the entries of the training and the validation list."""
        known = endings()
        for key, split in self._lists.items():
            for number, entry in enumerate(self.metadata[key]):
                files = [entry.get(kind) for kind in ("image", "label")] if isinstance(entry, dict) else []
                paths = [self.src / file for file in files if isinstance(file, str) and has_ending(file, known)]
                if len(paths) == 2 and all(is_inside(path, self.src) for path in paths):
                    image, label = paths
                    yield _pair(stem(image), [image] * len(self.channels), label, split)
                else:
                    where, allowed = f"{key}[{number}]", f"image and label inside {self.src}, each one of {kinds()}"
                    yield Pair(where, split=split, error=InputError(self.index, where, entry, allowed))


class PlainLayout(Layout):
    """A folder of images and one of labels, paired by file name; also below ``train`` and ``val``."""

    def __init__(self, src: Path, images: str, labels: str) -> None:
        super().__init__(src)
        roots = {src: None, src / TRAIN: TRAIN, src / VALIDATION: VALIDATION}
        self.roots = {root: split for root, split in roots.items() if (root / images).is_dir()}
        self.images, self.labels = images, labels
        if not self.roots:
            raise InputError(src, "src", f"no {INDEX} of a known layout and no folder {images}", _ALLOWED)

    def pairs(self) -> Iterator[Pair]:
        """List the file names below each folder."""
        for root, split in self.roots.items():
            files: dict[str, tuple[list[Path], list[Path]]] = {}
            images, labels = (image_files(_existing(root / folder)) for folder in (self.images, self.labels))
            names = {stem(path) for path in images}
            for path in images:
                files.setdefault(stem(path).removesuffix("_0000"), ([], []))[0].append(path)
            for path in labels:
                name = stem(path) if stem(path) in names else _LABEL_SUFFIX.sub("", stem(path))
                files.setdefault(name.removesuffix("_0000"), ([], []))[1].append(path)
            for name, (found, masks) in sorted(files.items()):
                if len(found) == len(masks) == 1:
                    yield Pair(name, (found[0],), masks[0], split)
                else:
                    counts = f"{len(found)} in {self.images} and {len(masks)} in {self.labels}"
                    error = InputError((found + masks)[0], "pair", counts, "one image and one label of this name")
                    yield Pair(name, split=split, error=error)


def find_layout(src: Path, images: str, labels: str) -> Layout:
    """Return the first layout that a folder has: nnU-Net v2, MSD, plain folders named ``images`` and ``labels``.

    Raises:
        InputError: it has none, or its ``dataset.json`` is malformed.
    """
    index = src / INDEX
    metadata = {}
    if index.is_file():
        metadata = read_json(index, "a JSON object")
        if not isinstance(metadata, dict):
            raise InputError(index, "file", type(metadata).__name__, "a JSON object")
    if "channel_names" in metadata:
        return NnUNetLayout(src, metadata)
    if "modality" in metadata and "training" in metadata:
        return DecathlonLayout(src, metadata)
    return PlainLayout(src, images, labels)


def _channels(metadata: Mapping[str, Any], field: str, index: Path) -> list[str]:
    value = metadata[field]
    if not isinstance(value, dict) or set(value) != {str(i) for i in range(len(value))} or not value:
        raise InputError(index, field, value, 'names of the channels "0", "1" ...')
    return [str(value[str(i)]) for i in range(len(value))]


def _pair(name: str, images: Sequence[Path], label: Path, split: str | None = None) -> Pair:
    missing = [path for path in (*images, label) if not path.is_file()]
    if missing:
        return Pair(name, split=split, error=InputError(missing[0], "file", "no such file", f"a file for {name}"))
    return Pair(name, tuple(images), label, split)


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise InputError(folder, "folder", "no such folder", _ALLOWED)
    return folder
