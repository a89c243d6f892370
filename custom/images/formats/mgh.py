"""Volumes of FreeSurfer; masks keep the source's header."""

from __future__ import annotations

import gzip
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from custom.atomic_write import write_whole
from custom.images.decoding import check_room, check_size, decoding, no_choice
from custom.images.formats import always, file_ending, has_ending
from custom.images.geometry import Geometry
from custom.images.grids import grid_shape, image_on_grid
from custom.images.image import Image

ENDINGS = (".mgz", ".mgh")
DESCRIPTION = "FreeSurfer (.mgz, .mgh)"
MASK = "mgz"

_COMPRESSION = 6

recognises = file_ending(ENDINGS)
mask_ending = always(".mgz")
mask_problem = always(None)  # every image has a grid, at least that of a picture


def read(path: str, *, frame: int | None = None, series: str | None = None, labels: bool = False) -> Image:
    """Read a volume.

    Raises:
        InputError: the file cannot be read, is larger than ``custom.limits`` allows, has no usable affine, is 4D with
            no volume chosen, or holds no ids.
    """
    from nibabel.arrayproxy import ArrayProxy
    from nibabel.freesurfer.mghformat import MGHHeader, header_dtype
    from nibabel.openers import ImageOpener

    no_choice(path, series=series)
    with decoding(path, "FreeSurfer volume"):
        with ImageOpener(path) as file:
            header = MGHHeader(file.read(header_dtype.itemsize))  # the rest of the header follows the voxels
        stored, itemsize = header.get_data_shape(), header.get_data_dtype().itemsize
        geometry = Geometry(header.get_affine(), grid_shape(stored, frame, path), path)
        check_size(geometry.canonical_shape, path, itemsize=itemsize)
        size = header.get_data_offset() + math.prod(map(int, stored)) * itemsize
        check_room(size, path, deflated=has_ending(path, (".mgz",)))
        several = len(stored) == 4
        array = np.asanyarray(ArrayProxy(path, header, mmap=False)[(..., frame) if several else ...])
        return image_on_grid(
            array,
            geometry,
            labels=labels,
            path=path,
            format="mgh",
            stored_shape=geometry.shape,
            ijk=True,
            source=header,
            notes={"frame": frame} if several else {},
        )


def write_mask(path: Path, labels: np.ndarray, names: Mapping[int, str], image: Image) -> None:
    """Write a label map, with the header of an image of FreeSurfer: uint8, or int32 for ids above 255.

    The file appears whole or not at all. The same labels give the same bytes. Names are not stored.
    """
    from nibabel.freesurfer.mghformat import MGHImage

    stored = image.to_ijk(labels)
    stored = stored if stored.dtype == np.uint8 else stored.astype(np.int32)  # few tools read MGH's uint16
    header = None
    if image.format == "mgh" and image.stored_shape == tuple(image.source["dims"][:3]):  # no slice out of a volume
        header = image.source.copy()
        header["dims"] = (*stored.shape, 1)
    mask = MGHImage(stored, image.grid.affine, header)
    mask.set_data_dtype(stored.dtype)
    content = gzip.compress(mask.to_bytes(), _COMPRESSION, mtime=0)
    write_whole(path, lambda whole: whole.write(content))
