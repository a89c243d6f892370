"""What every reader gives: a cheap list of sources, and one loaded case for each of them."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from custom.errors import InputError
from custom.images.geometry import Geometry

TRAIN, VALIDATION = "train", "val"
_LONGEST_NAME = 160  # a file system allows 255 bytes, and endings are added


@dataclass(frozen=True)
class Source:
    """One case that can be loaded, known without opening its files.

    Attributes:
        name: case name, unique in the prepared set and safe as a file name.
        entry: whatever the reader needs to load it; small JSON values, since it travels to a worker process and a
            change of it means that the case is prepared again.
        files: every file it is read from; a change of one means that the case is prepared again.
        error: why it cannot be loaded, where the list alone already tells.
    """

    name: str
    entry: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    error: InputError | None = None


@dataclass(frozen=True, kw_only=True)
class Case:
    """One loaded image or volume with its masks, as the source holds them.

    Attributes:
        name: the name of its :class:`Source`.
        modality: one of ``custom.modalities.MODALITIES``.
        dataset: the data set it belongs to.
        split: ``"train"`` or ``"val"``; None where the source does not tell, and the pipeline draws it.
        image: (Z, H, W) or (Z, H, W, C) with C in 1, 3, 4; any real dtype; Z = 1 for a picture.
        label: (Z, H, W) integers, 0 is background.
        names: label id -> name; ``"*"`` names every id that is not listed. An id without a name is dropped.
        spacing: (z, y, x) in mm, or None where it is not known.
        instance: every id is one object already, so masks are never split.
        dimension: 2 for a picture, 3 for a volume.
        image_file: the file to name in errors about the image.
        label_file: the file to name in errors about the label.
        geometry: the source grid of a volume whose arrays were turned by ``Geometry.canonical``; None otherwise.
        meta: optional text fields of the prepared form: patient, license, source.
    """

    name: str
    modality: str
    dataset: str
    split: str | None
    image: np.ndarray
    label: np.ndarray
    names: Mapping[int | str, str]
    spacing: tuple[float, float, float] | None
    instance: bool
    dimension: int
    image_file: str
    label_file: str
    geometry: Geometry | None = None
    meta: Mapping[str, str] = field(default_factory=dict)


class Reader(ABC):
    """A kind of source. A new format is a subclass, registered in ``data_prep.readers.READERS``.

    A reader must pickle (worker processes receive it), so it keeps paths and options only.
    """

    #: Name of the data set that is prepared.
    name: str

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


def safe_name(*parts: str) -> str:
    """Join parts to one ASCII name of at most 160 characters that is safe as a file name.

    Eight digits of the SHA-256 of the parts are added where letters beyond ASCII would get lost or the name is cut.

    Example:
        >>> safe_name("CT", "CURVAS", "r1/10001 458")
        'CT_CURVAS_r1_10001_458'
    """
    joined = "_".join(parts)
    name = re.sub(r"[^A-Za-z0-9.+-]+", "_", joined).strip("._")
    if joined.isascii() and len(name) <= _LONGEST_NAME:
        return name or "case"
    digits = hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{name[: _LONGEST_NAME - 9]}_{digits}".lstrip("_")
