"""The interface of readers: a quick list of sources, and one loaded case for each; and what readers share."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from custom.errors import InputError
from custom.images.formats import format_of
from custom.images.image import Image

TRAIN, VALIDATION = "train", "val"
#: Stands for every id that names do not list.
ALL_IDS = "*"
_ID = re.compile(r"[0-9]{1,9}")
_LONGEST_NAME = 160  # a file system allows 255 bytes, and endings are added


@dataclass(frozen=True)
class Source:
    """One case that can be loaded, known without opening its files.

    Attributes:
        name: case name, unique in the prepared set and safe as a file name.
        entry: what the reader needs to load it; small JSON values, since it is sent to a worker process, and a
            change means that the case is prepared again.
        files: every file it is read from; a change means that the case is prepared again.
        error: why it cannot be loaded, if the list already shows that.
    """

    name: str
    entry: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    error: InputError | None = None


@dataclass(frozen=True, kw_only=True)
class Case:
    """An image with its masks and their names, as stored in the source.

    Attributes:
        name: the name of its :class:`Source`.
        modality: one of ``custom.modalities.MODALITIES``.
        dataset: the data set it belongs to.
        split: ``"train"`` or ``"val"``; None if the source gives none; the pipeline then draws it.
        image: as read by its format: (Z, H, W) or (Z, H, W, C) with C in 1, 3, 4, spacing (z, y, x) in mm or None.
        label: (Z, H, W) integers, 0 is background.
        label_file: the file to name in errors about the label.
        names: label id -> name; ``"*"`` names every id that is not listed. An id without a name is dropped.
        instance: every id is already one object, so masks are never split.
        meta: optional text fields of the prepared form: patient, license, source.
    """

    name: str
    modality: str
    dataset: str
    split: str | None = None
    image: Image
    label: np.ndarray
    label_file: str
    names: Mapping[int | str, str]
    instance: bool = False
    meta: Mapping[str, str] = field(default_factory=dict)


class Reader(ABC):
    """A kind of data set. A new kind is a subclass, registered in ``data_prep.readers.READERS``.

    A reader must pickle (worker processes receive it), so it keeps paths and options only.
    """

    #: Name of the data set that is prepared.
    name: str

    def use_folder(self, src: str | PathLike[str], allowed: str) -> None:
        """Use a folder as the source; it names the data set.

        Raises:
            InputError: there is no such folder.
        """
        self.src = Path(src)
        if not self.src.is_dir():
            raise InputError(src, "src", "no such folder", allowed)
        self.name = self.src.resolve().name

    @abstractmethod
    def sources(self) -> list[Source]:
        """List the cases in a fixed order, without opening images.

        Raises:
            InputError: there is no source at all. A single bad one is listed with its ``error`` instead.
        """

    @abstractmethod
    def load(self, source: Source) -> Case:
        """Load one case.

        Raises:
            InputError: it cannot be read.
        """


def read_raw(path: str | PathLike[str], *, frame: int | None = None) -> Image:
    """Read an image of any format as it is stored, or one volume of a 4D file.

    A picture without a grid gets no spacing: such pictures are measured in pixels.

    Raises:
        InputError: it cannot be read.
    """
    image = format_of(path).read(str(path), frame=frame)
    return replace(image, spacing=None) if image.kind == "picture" and image.geometry is None else image


def check_shape(shape: tuple[int, ...], image: Image, source: str, field: str = "label") -> None:
    """Check that a label has the size of its image.

    Args:
        shape: (Z, H, W) of the label.
        image: from ``read_raw``.
        source: its file, for the error.
        field: the part of that file, for the error.

    Raises:
        InputError: it has another size; the error says if that is the size before EXIF orientation.
    """
    allowed = image.array.shape[:3]
    if shape == allowed:
        return
    wanted = f"the image's {allowed}"
    if image.notes.get("exif_orientation", 1) >= 5 and shape == (allowed[0], allowed[2], allowed[1]):
        wanted += ", upright according to its EXIF orientation, not as stored"
    raise InputError(source, field, f"shape {shape}", wanted)


def is_id(text: str) -> bool:
    """Return whether a text is a label id: at most nine decimal digits."""
    return _ID.fullmatch(text) is not None


def parse_names(value: Any, source: str, field: str) -> dict[int | str, str]:
    """Return id -> name with whole numbers as ids, and with ``"*"`` kept, which names every other id.

    Args:
        value: id -> name; an id is a whole number from 1 up, or its digits as text.
        source: the file or argument the names came from, for the error.
        field: the part of it, for the error.

    Raises:
        InputError: it is not such a mapping, or it is empty.

    Example:
        >>> parse_names({"1": "liver", "*": "vessel"}, "arguments", "names")
        {1: 'liver', '*': 'vessel'}
    """
    if not isinstance(value, Mapping) or not value:
        raise InputError(source, field, repr(value), "an object of id -> name")
    names: dict[int | str, str] = {}
    for key, name in value.items():
        if key != ALL_IDS and not (is_id(str(key)) and int(key) > 0):
            raise InputError(source, field, repr(key), 'ids from 1 up, or "*"')
        names[key if key == ALL_IDS else int(key)] = str(name)
    return names


def safe_name(*parts: str | None) -> str:
    """Join parts, without those that are None or empty, into an ASCII name of at most 160 characters for a file.

    Eight digits of the SHA-256 of the parts are added if letters beyond ASCII would be lost or the name is cut.

    Example:
        >>> safe_name("CT", "CURVAS", "r1/10001 458")
        'CT_CURVAS_r1_10001_458'
    """
    joined = "_".join(filter(None, parts))
    name = re.sub(r"[^A-Za-z0-9.+-]+", "_", joined).strip("._")
    if joined.isascii() and len(name) <= _LONGEST_NAME:
        return name or "case"
    digits = hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{name[: _LONGEST_NAME - 9]}_{digits}".lstrip("_")
