"""Pictures that Pillow decodes: PNG, JPEG, BMP, WebP; masks are PNG."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from custom.atomic_write import write_whole
from custom.errors import InputError
from custom.images.colours import colour_table
from custom.images.decoding import ORIENTATION_TAG, as_label, check_size, decoding, no_choice, upright
from custom.images.formats import always, file_ending
from custom.images.image import Image
from custom.limits import PIXELS

if TYPE_CHECKING:
    import PIL.Image

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
DESCRIPTION = "PNG, JPEG, BMP, WebP (.png, .jpg, .jpeg, .bmp, .webp)"
MASK = "png"

_PLAIN_MODES = {"L", "RGB", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"}
#: The formats that Pillow may open: for some others (EPS) it starts programs.
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")

recognises = file_ending(ENDINGS)
mask_ending = always(".png")


def read(path: str, *, frame: int | None = None, series: str | None = None, labels: bool = False) -> Image:
    """Read a picture upright: an EXIF orientation is applied, as in viewers, and noted.

    Palette and other colour models become RGB, an alpha channel is dropped, 16- and 32-bit grey keeps its values, and
    black and white become 0 and 255. The ids of a palette picture are its palette indices.

    Raises:
        InputError: the file cannot be read, is larger than ``custom.limits`` allows or animated, ``labels`` for a
            colour picture, or a frame or series is chosen.
    """
    import PIL.Image

    no_choice(path, frame=frame, series=series)
    with decoding(path, "label picture" if labels else "picture"), warnings.catch_warnings():
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)  # check_size raises an error instead
        PIL.Image.MAX_IMAGE_PIXELS = PIXELS.value  # Pillow itself refuses twice this number
        with PIL.Image.open(path, formats=_FORMATS) as picture:
            check_size((1, picture.height, picture.width), path, itemsize=4)
            if picture.format == "WEBP" and picture.n_frames > 1:
                raise InputError(path, "frames", f"an animation of {picture.n_frames}", "one picture")
            picture.load()  # PNG may store EXIF after the pixels
            orientation = _orientation(picture)
            if not labels and picture.mode not in _PLAIN_MODES:
                picture = picture.convert("L" if picture.mode in ("1", "LA", "La") else "RGB")
            array, notes = upright(np.asarray(picture)[None], orientation)  # HxW[x3] -> 1xHxW[x3]
    if labels:
        array = as_label(array, path)
    return Image(path=str(path), format="pictures", array=array, kind="picture", notes=notes)


def mask_problem(image: Image) -> str | None:
    """Return why an image cannot have a PNG mask, or None."""
    return "a volume" if image.kind == "volume" else None


def write_mask(path: Path, labels: np.ndarray, names: Mapping[int, str], image: Image) -> None:
    """Write a label map as a PNG whose values are the labels: 8-bit with a colour table, or 16-bit grey."""
    import PIL.Image

    labels = image.to_zyx(labels)
    picture = PIL.Image.fromarray(labels)
    if labels.dtype == np.uint8:
        picture.putpalette(colour_table().tobytes())
    write_whole(path, lambda file: picture.save(file, "PNG"))


def _orientation(picture: PIL.Image.Image) -> object:
    """Return the EXIF orientation; 1 if EXIF is broken, which viewers ignore as well."""
    try:
        return picture.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # any, as in ``decoding``: EXIF is parsed from the bytes of the file
        return 1
