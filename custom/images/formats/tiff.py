"""TIFF pictures and stacks, with the spacing of ImageJ and OME-TIFF; masks are written as by ImageJ."""

from __future__ import annotations

import math
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from custom.atomic_write import write_whole
from custom.images.decoding import ORIENTATION_TAG, as_label, no_choice, upright
from custom.images.formats import always, file_ending
from custom.images.image import Image

if TYPE_CHECKING:
    import tifffile

ENDINGS = (".tif", ".tiff")
DESCRIPTION = "TIFF (.tif, .tiff)"
MASK = "tiff"

#: Units of lengths, by the names of ImageJ and OME. Without inches: they come from the resolution of a scanner.
_MILLIMETRES = {"nm": 1e-6, "um": 1e-3, "µm": 1e-3, "micron": 1e-3, "microns": 1e-3, "mm": 1.0, "cm": 10.0}
_MILLIMETRES |= {"millimeter": 1.0, "centimeter": 10.0, "m": 1000.0}

recognises = file_ending(ENDINGS)
mask_ending = always(".tif")
mask_problem = always(None)


def read(path: str, *, frame: int | None = None, series: str | None = None, labels: bool = False) -> Image:
    """Read a TIFF picture, or a stack of one page per slice.

    8-bit palettes become RGB, an alpha channel is dropped, deeper values are kept, and black and white become 0 and
    255; labels stay as stored. An orientation tag turns a picture upright and is noted. The spacing is that of ImageJ
    or OME-XML; a resolution alone describes a scanner or printer, not the object.

    Raises:
        InputError: the file cannot be read, is larger than ``custom.limits`` allows, has more axes, ``labels`` for a
            colour picture, or a frame or series is chosen.
    """
    from custom.images.tiff_pages import displayed, open_tiff, stored_values

    no_choice(path, frame=frame, series=series)
    with open_tiff(path) as file:
        array, page = stored_values(file, path), file.pages[0]
        if not labels:
            array = displayed(array, page, path)
        spacing, notes = _spacing(file, len(array)), {}
        if len(array) == 1:
            orientation = page.tags.valueof(ORIENTATION_TAG, 1)
            array, notes = upright(array, orientation)
            if spacing is not None and notes and orientation >= 5:  # rows and columns are exchanged
                spacing = (spacing[0], spacing[2], spacing[1])
    if labels:
        array = as_label(array, path)
    kind = "picture" if len(array) == 1 else "volume"
    return Image(path=str(path), format="tiff", array=array, kind=kind, spacing=spacing, notes=notes)


def write_mask(path: Path, labels: np.ndarray, names: Mapping[int, str], image: Image) -> None:
    """Write a label map as an ImageJ stack, which can hold the spacing."""
    import tifffile

    labels, content = image.to_zyx(labels), BytesIO()
    metadata: dict[str, object] = {"axes": "ZYX"[-labels.ndim :]}
    resolution = None
    if image.source_spacing is not None:
        x, y, *z = image.source_spacing
        metadata |= {"unit": "mm"} | ({"spacing": z[0]} if z else {})
        resolution = (1 / x, 1 / y)
    options = {"photometric": "minisblack", "compression": "zlib", "resolution": resolution}
    tifffile.imwrite(content, labels, imagej=True, metadata=metadata, **options)
    write_whole(path, lambda file: file.write(content.getbuffer()))


def _spacing(file: tifffile.TiffFile, slices: int) -> tuple[float, float, float] | None:
    """Return the spacing (z, y, x) in mm, z = 1 for a picture; None if neither ImageJ nor OME declares it."""
    if slices > 1 and file.series[0].sizes.get("time", 1) > 1:
        return None  # its pages are points in time
    steps = _ome_steps(file.ome_metadata) if file.is_ome else _imagej_steps(file)
    if slices == 1:
        steps[0] = 1.0
    if not all(0 < step < math.inf for step in steps):
        return None
    z, y, x = (round(step, 9) for step in steps)
    return z, y, x


def _imagej_steps(file: tifffile.TiffFile) -> list[float]:
    """Return (z, y, x) in mm, 0 if not declared."""
    metadata, tags = file.imagej_metadata or {}, file.pages[0].tags
    unit = _MILLIMETRES.get(str(metadata.get("unit", "")).replace("\\u00B5", "µ").replace("μ", "µ"), 0.0)
    steps = [abs(float(metadata.get("spacing", 0))) * unit]
    for name in ("YResolution", "XResolution"):
        pixels, units = tags[name].value if name in tags else (0, 0)
        steps.append(units / pixels * unit if pixels else 0.0)
    return steps


def _ome_steps(xml: str) -> list[float]:
    """Return (z, y, x) in mm of the first image, 0 if not declared; ``open_tiff`` has refused entities."""
    from xml.etree import ElementTree

    pixels = ElementTree.fromstring(xml).find(".//{*}Pixels")
    found = {} if pixels is None else pixels.attrib
    units = (found.get(f"PhysicalSize{axis}Unit", "µm").replace("μ", "µ") for axis in "ZYX")
    sizes = (float(found.get(f"PhysicalSize{axis}", 0)) for axis in "ZYX")
    return [size * _MILLIMETRES.get(unit, 0.0) for size, unit in zip(sizes, units, strict=True)]
