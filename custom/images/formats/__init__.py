"""The image formats, one module each, and their registry.

A new format is a module here, which offers what ``Format`` lists, and its test; nothing else changes. Modules import
their decoders when they first decode, so that importing the registry takes no time.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from custom.errors import InputError
from custom.images.image import Image

#: Formats for a mask that the format of its image cannot hold, in order of preference.
_FALLBACKS = ("nifti", "png", "tiff")


class Format(Protocol):
    """What a module of this package offers.

    Attributes:
        ENDINGS: endings of file names, in lower case; empty if only masks are written.
        DESCRIPTION: text for errors, e.g. "NRRD (.nrrd, .nhdr)"; empty if only masks are written.
        MASK: the name of its masks for ``--format``, or None if no masks are written.
    """

    ENDINGS: tuple[str, ...]
    DESCRIPTION: str
    MASK: str | None

    def recognises(self, path: str) -> bool:
        """Return whether a file or folder has this format, by its name if possible."""
        ...

    def read(self, path: str, *, frame: int | None = None, series: str | None = None, labels: bool = False) -> Image:
        """Read the values as stored: (Z, H, W) or (Z, H, W, C).

        Args:
            path: the file or folder.
            frame: which volume of a 4D file, from 0.
            series: the UID, number or description of the DICOM series to read.
            labels: whether the array must hold integer ids, (Z, H, W).

        Raises:
            InputError: it cannot be read, is larger than ``custom.limits`` allows, holds no ids, or has no choice of
                frame or series.
        """
        ...

    def mask_ending(self, image: Image) -> str:
        """Return the ending of a mask's file name."""
        ...

    def mask_problem(self, image: Image) -> str | None:
        """Return why an image cannot have such a mask, checked before the network runs; else None."""
        ...

    def write_mask(self, path: Path, labels: np.ndarray, names: Mapping[int, str], image: Image) -> None:
        """Write a label map, whole or not at all.

        Args:
            path: has the ending of ``mask_ending``.
            labels: uint8 or uint16, of the size of ``image.array``.
            names: value -> name of each object; not every format stores them.
            image: the segmented image.

        Raises:
            InputError: the image cannot have such a mask.
            OSError: the file cannot be written.
        """
        ...


def file_ending(endings: tuple[str, ...]) -> Callable[[str], bool]:
    """Make a ``recognises`` for files whose names have one of some endings."""
    return lambda path: has_ending(path, endings) and os.path.isfile(path)


def always(value: Any) -> Callable[[Any], Any]:
    """Make a ``mask_ending``, ``mask_problem`` or ``recognises`` that returns the same for everything."""
    return lambda _: value


@cache
def formats() -> Mapping[str, Format]:
    """Return module name -> module, in alphabetical order."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    return {name: importlib.import_module(f"{__name__}.{name}") for name in names}


def endings() -> tuple[str, ...]:
    """Return every ending of a file that can be read, longest first."""
    found = {ending for module in formats().values() for ending in module.ENDINGS}
    return tuple(sorted(found, key=lambda ending: (-len(ending), ending)))


def kinds() -> str:
    """Describe what can be read, for an error."""
    return ", ".join(module.DESCRIPTION for module in formats().values() if module.DESCRIPTION)


def has_ending(path: str | os.PathLike[str], ending: tuple[str, ...]) -> bool:
    """Return whether a file name has one of some endings, in upper or lower case."""
    return Path(path).name.lower().endswith(ending)


def image_files(folder: Path) -> list[Path]:
    """List the files of known formats directly in a folder, sorted, without hidden ones; of a pair only the header."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    headers = {path.stem for path in files if has_ending(path, (".hdr",))}
    known = (path for path in files if has_ending(path, endings()))
    return [path for path in known if not (has_ending(path, (".img",)) and path.stem in headers)]


def stem(path: str | os.PathLike[str]) -> str:
    """Return a file's or folder's name without the ending of its format.

    Example:
        >>> stem("in/a.b.nii.gz"), stem("in/1.2.840.1")
        ('a.b', '1.2.840.1')
    """
    name = Path(path).name or Path(path).resolve().name
    ending = next((e for e in endings() if name.lower().endswith(e)), "")
    return name[: len(name) - len(ending)] or name


def format_of(path: str | os.PathLike[str]) -> Format:
    """Return the format of a file or folder.

    Raises:
        InputError: no such file, or an unknown format.
    """
    text = str(path)
    if not os.path.exists(text):  # also False for what cannot be a path
        raise InputError(path, "image", "no such file", kinds())
    modules = sorted(formats().values(), key=lambda module: not has_ending(text, module.ENDINGS or ("\0",)))
    found = next((module for module in modules if module.recognises(text)), None)  # by name first, then by content
    if found is None:
        raise InputError(path, "image", "a file of another kind", kinds())
    return found


def mask_formats() -> Mapping[str, Format]:
    """Return name for ``--format`` -> module."""
    return {module.MASK: module for module in formats().values() if module.MASK}


def check_mask_format(name: object) -> str | None:
    """Return the name of a format of masks, or None for the source's own.

    Raises:
        InputError: an unknown format.
    """
    if name is not None and name not in mask_formats():
        raise InputError("arguments", "format", repr(name), ", ".join(sorted(mask_formats())))
    return name


def mask_format(image: Image, name: str | None = None) -> tuple[Format, str | None]:
    """Choose the format of an image's mask, before anything is computed.

    Args:
        image: the image to segment.
        name: the format to use; None for the image's own, or else the first that can hold the mask.

    Returns:
        The format, and why it is not the image's own, or None.

    Raises:
        InputError: the requested format cannot hold the mask.
    """
    if name is not None:
        module = mask_formats()[check_mask_format(name)]
        problem = module.mask_problem(image)
        if problem:
            possible = (other for other, module in sorted(mask_formats().items()) if module.mask_problem(image) is None)
            raise InputError(image.path, f"format {name}", problem, ", ".join(possible))
        return module, None
    own = formats().get(image.format)
    reason = None if own is None or own.MASK is None else own.mask_problem(image)
    if own is not None and own.MASK is not None and reason is None:
        return own, None
    return fallback_format(image), reason


def fallback_format(image: Image) -> Format:
    """Return a format that can hold the mask of any image: NIfTI if it has a grid, else PNG or TIFF."""
    order = _FALLBACKS if image.geometry is not None else _FALLBACKS[1:]
    return next(module for module in map(mask_formats().get, order) if module.mask_problem(image) is None)
