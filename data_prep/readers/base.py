"""What every reader gives: a cheap list of sources, and one loaded case for each of them."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from custom.errors import InputError

TRAIN, VALIDATION = "train", "val"


@dataclass(frozen=True)
class Source:
    """One case that can be loaded, known without opening its files.

    Attributes:
        name: case name, unique in the prepared set and safe as a file name.
        entry: whatever the reader needs to load it; small, since it travels to a worker process.
        error: why it cannot be loaded, where the list alone already tells.
    """

    name: str
    entry: Mapping[str, Any] = field(default_factory=dict)
    error: InputError | None = None


@dataclass(frozen=True, kw_only=True)
class Case:
    """One loaded image or volume with its masks, as the source holds them.

    Attributes:
        name: the name of its :class:`Source`.
        modality: one of ``custom.modalities.MODALITIES``.
        dataset: the data set it belongs to.
        split: ``"train"`` or ``"val"``.
        image: (Z, H, W) or (Z, H, W, C) with C in 1, 3, 4; any real dtype; Z = 1 for a picture.
        label: (Z, H, W) integers, 0 is background.
        names: label id -> name; ``"*"`` names every id that is not listed. An id without a name is dropped.
        spacing: (z, y, x) in mm, or None where it is not known.
        instance: every id is one object already, so masks are never split.
        dimension: 2 for a picture, 3 for a volume.
        image_file: the file to name in errors about the image.
        label_file: the file to name in errors about the label.
        meta: optional text fields of the prepared form: patient, license, source.
    """

    name: str
    modality: str
    dataset: str
    split: str
    image: np.ndarray
    label: np.ndarray
    names: Mapping[int | str, str]
    spacing: tuple[float, float, float] | None
    instance: bool
    dimension: int
    image_file: str
    label_file: str
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
    """Join parts to one name that is safe as a file name.

    Example:
        >>> safe_name("CT", "CURVAS", "r1/10001 458")
        'CT_CURVAS_r1_10001_458'
    """
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", "_".join(parts)).strip("._") or "case"
