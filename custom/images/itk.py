"""Read and write volumes by SimpleITK; shared by the formats that ITK decodes.

A format first reads its text header by itself, so that ITK opens no file that it should not, and names the one decoder
of ITK that may run.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from custom.atomic_write import is_inside, write_whole
from custom.errors import InputError
from custom.images.decoding import check_room, check_size
from custom.images.geometry import Geometry
from custom.images.grids import grid_shape, image_on_grid
from custom.images.image import Image
from custom.limits import BYTES

if TYPE_CHECKING:
    from SimpleITK import ImageFileReader

LONGEST_HEADER = 2**20  # bytes; the gradients of a diffusion series take about 100 kB
_PIXEL = re.compile(r"(?:vector of )?(\d+)-bit (?:(?:un)?signed integer|float)")
_ITK_OWN = re.compile(r"^Exception thrown in SimpleITK \w+:( \S+:\d+:)?|(s?itk::|ITK )ERROR:|\w+ ?\(0x[0-9a-f]+\):?")
_CHUNK = 2**20
_ZLIB_OR_GZIP = 47  # zlib's largest window, with a header of either kind
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # from left-posterior-superior and back
_FORMATS = ("nrrd", "metaimage")


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What a text header declares about the voxels.

    Attributes:
        data: the file that holds them.
        start: offset of the voxels in it, bytes.
        deflated: whether they are compressed.
        packed: length of a zlib or gzip stream that ITK's decoder does not check itself.
    """

    data: str
    start: int
    deflated: bool
    packed: int | None = None


def read_start(path: str) -> bytes:
    """Return the first ``LONGEST_HEADER`` bytes of a file."""
    with open(path, "rb") as file:
        return file.read(LONGEST_HEADER)


def data_file(path: str, field: str, name: str) -> str:
    """Return the path of the file of voxels that a header names.

    Raises:
        InputError: the name is a list or a pattern, or the file is outside the header's folder or missing.
    """
    folder = os.path.dirname(os.path.abspath(path))
    found = os.path.join(folder, name)
    if name.upper().startswith("LIST") or "%" in name:
        raise InputError(path, field, repr(name), "the name of one file")
    if not is_inside(found, folder):
        raise InputError(path, field, repr(name), "a file in the header's own folder")
    if not os.path.isfile(found):
        raise InputError(path, field, f"no file {name!r}", "a file in the header's own folder")
    return found


def read_itk(path: str, module: str, decoder: str, declared: Declared, *, frame: int | None, labels: bool) -> Image:
    """Read a volume with one of ITK's decoders.

    Pixels of 3 or 4 numbers are colours. Pixels of any other count, and numbers along an axis that the header calls a
    list, are volumes of a 4D file. ``module`` is the name of the format, ``decoder`` ITK's, e.g. "NrrdImageIO".

    Raises:
        InputError: the file cannot be read, is larger than ``custom.limits`` allows, has another shape or kind of
            pixels, has no usable affine, is 4D with no volume chosen, or holds no ids.
    """
    import SimpleITK as sitk

    with _errors_of_itk(path, module):
        reader = sitk.ImageFileReader()
        reader.SetImageIO(decoder)
        reader.SetFileName(os.path.abspath(path))
        reader.ReadImageInformation()
        size, components = reader.GetSize(), reader.GetNumberOfComponents()
        pixel = sitk.GetPixelIDValueAsString(reader.GetPixelID())
        kind = _PIXEL.fullmatch(pixel)
        if kind is None:
            raise InputError(path, "pixels", pixel, "integers or real numbers")
        axes = [*size, 1] if len(size) == 2 else [*size]
        listed = reader.HasMetaDataKey("NRRD_kinds[pixel]") and reader.GetMetaData("NRRD_kinds[pixel]") == "list"
        volumes = components > 1 and (listed or components not in (3, 4))  # the numbers of a pixel
        colours = [components] if components > 1 and not volumes else []
        shape = grid_shape([*axes, components] if volumes else axes, frame, path)
        geometry = Geometry(_affine(reader), shape, path)
        itemsize = int(kind[1]) // 8
        check_size(geometry.canonical_shape, path, itemsize=itemsize * math.prod(colours))
        whole = math.prod(size) * components * itemsize
        BYTES.check(whole, path, "size")  # ITK decodes every volume of a 4D file
        check_room(declared.start + whole, declared.data, deflated=declared.deflated)
        if declared.packed is not None:
            _check_stream(declared, whole, path)
        array = sitk.GetArrayFromImage(reader.Execute())
    several = volumes or math.prod(axes) > math.prod(shape)
    if several:
        array = array[..., frame] if volumes else array[frame]
    return image_on_grid(
        array.reshape(*shape[::-1], *colours).swapaxes(0, 2),
        geometry,
        labels=labels,
        path=path,
        format=module,
        stored_shape=shape[1::-1] if len(size) == 2 else shape[::-1],
        notes={"frame": frame} if several else {},
    )


def write_itk(path: Path, decoder: str, labels: np.ndarray, image: Image, facts: Mapping[str, str]) -> None:
    """Write a label map on the grid of its image, compressed, with further ``facts`` in the header.

    The file appears whole or not at all. The mask of a flat file is flat as well.

    Raises:
        OSError: the file cannot be written.
    """
    import SimpleITK as sitk

    axes = 2 if image.format in _FORMATS and len(image.stored_shape or ()) == 2 else 3
    stored = image.to_ijk(labels).T  # KxJxI
    affine = _TO_RAS @ image.grid.affine
    spacing = np.linalg.norm(affine[:axes, :axes], axis=0)
    mask = sitk.GetImageFromArray(stored[0] if axes == 2 else stored)
    mask.SetOrigin(affine[:axes, 3].tolist())
    mask.SetSpacing(spacing.tolist())
    mask.SetDirection((affine[:axes, :axes] / spacing).ravel().tolist())
    for key, value in facts.items():
        mask.SetMetaData(key, value)
    with TemporaryDirectory() as folder:
        written = os.path.join(folder, f"mask{path.suffix}")
        try:
            sitk.WriteImage(mask, written, useCompression=True, imageIO=decoder)
        except RuntimeError as error:
            raise OSError(f"{path}: {_in_short(error, written)}") from error
        with open(written, "rb") as content:
            write_whole(path, lambda file: shutil.copyfileobj(content, file))


def _affine(reader: ImageFileReader) -> np.ndarray:
    """Return the affine, right-anterior-superior, of the first three axes; for a flat file, as ITK places a picture."""
    axes = reader.GetDimension()
    spaces = min(axes, 3)
    affine = np.eye(4)
    direction = np.reshape(reader.GetDirection(), (axes, axes))[:spaces, :spaces]
    affine[:spaces, :spaces] = direction * reader.GetSpacing()[:spaces]
    affine[:spaces, 3] = reader.GetOrigin()[:spaces]
    return _TO_RAS @ affine


def _check_stream(declared: Declared, size: int, path: str) -> None:
    """Unpack the voxels and check that they have ``size`` bytes.

    Raises:
        InputError: the stream is broken, or has another length.
    """
    unpacker, found = zlib.decompressobj(wbits=_ZLIB_OR_GZIP), 0
    with open(declared.data, "rb") as file:
        end = file.seek(declared.start) + declared.packed
        while not unpacker.eof and found <= size:
            packed = unpacker.unconsumed_tail or file.read(min(_CHUNK, end - file.tell()))
            if not packed:
                break
            found += len(unpacker.decompress(packed, _CHUNK))
    if found != size or not unpacker.eof:
        raise InputError(path, "voxels", f"a stream of {found} bytes", f"{size} bytes, as the header declares")


@contextmanager
def _errors_of_itk(path: str, module: str) -> Iterator[None]:
    """Keep ITK's warnings off the terminal and turn its errors into one line."""
    import SimpleITK as sitk

    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.GlobalWarningDisplayOff()
    try:
        yield
    except RuntimeError as error:
        found = _in_short(error, os.path.abspath(path))
        raise InputError(path, "file", found, f"a readable {module} file") from error
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def _in_short(error: RuntimeError, path: str) -> str:
    """Return the last reason ITK gives, without source lines, addresses and the folder of the file."""
    text = _ITK_OWN.sub(" ", str(error)).rpartition("[nrrd] ")[2].replace(path, os.path.basename(path))
    return " ".join(text.split())[:200]
