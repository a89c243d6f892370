"""NIfTI-1 and NIfTI-2 in one file or as a pair, and pairs of Analyze 7.5; masks keep the source's header."""

from __future__ import annotations

import gzip
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from nibabel.analyze import AnalyzeHeader
from nibabel.arrayproxy import ArrayProxy
from nibabel.nifti1 import Nifti1Header, Nifti1PairHeader
from nibabel.nifti2 import Nifti2Header, Nifti2PairHeader
from nibabel.openers import ImageOpener
from nibabel.spm2analyze import Spm2AnalyzeHeader

from custom.atomic_write import write_whole
from custom.errors import InputError
from custom.images.decoding import check_room, check_size, decoding, no_choice
from custom.images.formats import always, file_ending, has_ending
from custom.images.geometry import Geometry
from custom.images.grids import grid_shape, image_on_grid
from custom.images.image import Image

_PAIR = (".hdr", ".img", ".hdr.gz", ".img.gz")
ENDINGS = (".nii", ".nii.gz", *_PAIR)
DESCRIPTION = "NIfTI (.nii, .nii.gz, .hdr with .img)"
MASK = "nifti"

_SINGLE_HEADERS = (Nifti1Header, Nifti2Header)
_PAIR_HEADERS = (Nifti1PairHeader, Nifti2PairHeader, Spm2AnalyzeHeader)  # the last is how nibabel reads any Analyze
_OF_INTENSITIES = ("cal_min", "cal_max", "scl_inter", "intent_code", "intent_p1", "intent_p2", "intent_p3")
_MILLIMETRES = {"meter": 1e3, "micron": 1e-3}
_COMPRESSION = 6
_LONGEST_AXIS = 2**15 - 1  # of NIfTI-1

recognises = file_ending(ENDINGS)
mask_problem = always(None)  # every image has a grid, at least that of a picture


def read(path: str, *, frame: int | None = None, series: str | None = None, labels: bool = False) -> Image:
    """Read a volume with the header's scaling applied.

    A file without an orientation (``sform_code`` and ``qform_code`` 0) gets nibabel's default affine, and so does
    Analyze, which has none. ``path`` may be either half of a pair.

    Raises:
        InputError: the file cannot be read, is larger than ``custom.limits`` allows, has another shape, is not real,
            has no usable affine, is 4D with no volume chosen, or holds no ids.
    """
    no_choice(path, series=series)
    with decoding(path, "NIfTI file"):
        header_file, data_file = _halves(path)
        source = _read_header(header_file, path)
        header = source.copy()
        header.check_fix()  # nibabel's own repairs; a mask gets the header unchanged
        stored = header.get_data_shape()
        geometry = Geometry(_affine(header), grid_shape(stored, frame, path), path)
        _check_declared(header, geometry, data_file)
        several = math.prod(stored) > math.prod(geometry.shape)
        part = (slice(None),) * 3 + (frame,) if several else ...
        # A memory map would change with the file, or end the process.
        array = np.asanyarray(ArrayProxy(data_file, header, mmap=False)[part])
        return image_on_grid(
            array.reshape(geometry.shape),
            geometry,
            labels=labels,
            path=path,
            format="nifti",
            stored_shape=_stored_shape(header),
            ijk=True,
            source=source,
            notes={"frame": frame} if several else {},
        )


def mask_ending(image: Image) -> str:
    """Return the ending of a mask: that of a header if the image is a pair."""
    return ".hdr" if image.format == "nifti" and has_ending(image.path, _PAIR) else ".nii.gz"


def write_mask(path: Path, labels: np.ndarray, names: Mapping[int, str], image: Image) -> None:
    """Write a label map, with the header of a NIfTI image, so that every reader places both alike.

    The file appears whole or not at all. The same labels give the same bytes. Names are not stored. If ``path`` is a
    ``.hdr``, the ``.img`` is written beside it.
    """
    if image.format == "nifti" and image.stored_shape == _stored_shape(image.source):
        stored, header = image.to_source(labels), image.source.copy()
    else:  # another format, or a slice taken out of a volume
        stored, header = image.to_ijk(labels), _header_of(image.grid)
    single = has_ending(path, ENDINGS[:2])
    _declare_labels(header, stored)
    header["vox_offset"] = header.single_vox_offset if single else 0
    voxels = stored.astype(header.get_data_dtype()).tobytes(order="F")
    if single:
        content = header.binaryblock.ljust(header.single_vox_offset, b"\0") + voxels
        if has_ending(path, (".gz",)):
            content = gzip.compress(content, _COMPRESSION, mtime=0)
        write_whole(path, lambda file: file.write(content))
        return
    data_file = path.with_suffix(".img")
    write_whole(data_file, lambda file: file.write(voxels))
    try:
        write_whole(path, lambda file: file.write(header.binaryblock))
    except BaseException:
        with suppress(OSError):
            data_file.unlink()
        raise


def _declare_labels(header: AnalyzeHeader, labels: np.ndarray) -> None:
    """Turn the header of an image into that of a label map, with the same place in space."""
    plain = labels.dtype == np.uint8 or isinstance(header, Nifti1Header)
    header.set_data_dtype(labels.dtype if plain else np.int32)  # Analyze has no uint16
    spacing = header["pixdim"].copy()
    header.set_data_shape(labels.shape)
    header["pixdim"] = spacing  # the fields that nibabel takes for unused belong to the qform
    for name in _OF_INTENSITIES:
        if name in header:
            header[name] = 0
    for name in ("descrip", "intent_name"):
        if name in header:
            header[name] = b""
    header["scl_slope"] = 1


def _halves(path: str) -> tuple[str, str]:
    """Return the file with the header and the one with the voxels.

    Raises:
        InputError: the other half of a pair is missing.
    """
    if not has_ending(path, _PAIR):
        return path, path
    packed = path[-3:] if path.lower().endswith(".gz") else ""
    stem, own = path[: len(path) - len(packed) - 3], path[len(path) - len(packed) - 3 : len(path) - len(packed)]
    other = "img" if own.lower() == "hdr" else "hdr"
    partner = stem + (other.upper() if own.isupper() else other) + packed
    if not os.path.isfile(partner):
        raise InputError(path, "file", f"no {Path(partner).name} beside it", "both halves of a pair, .hdr and .img")
    return (partner, path) if other == "hdr" else (path, partner)


def _read_header(header_file: str, path: str) -> AnalyzeHeader:
    """Read a header without changes, and nothing else.

    ``nibabel.load`` would also accept files of other formats, and read extensions of any length.
    """
    with ImageOpener(header_file) as file:
        block = file.read(Nifti2Header.sizeof_hdr)
    pair = has_ending(path, _PAIR)
    for kind in _PAIR_HEADERS if pair else _SINGLE_HEADERS:
        if not kind.may_contain_header(block):
            continue
        header = kind(block[: kind.sizeof_hdr], check=False)
        if not isinstance(header, Nifti1Header):
            if Path(header_file).with_suffix(".mat").exists():
                raise InputError(path, "file", "Analyze with an affine in a .mat file", "NIfTI, which holds its affine")
            return header
        if header["magic"] == (kind.pair_magic if pair else kind.single_magic):
            return header
    allowed = "NIfTI or Analyze as a pair" if pair else "NIfTI-1 or NIfTI-2 in one file"
    raise InputError(path, "file", "no NIfTI header", allowed)


def _check_declared(header: AnalyzeHeader, geometry: Geometry, data_file: str) -> None:
    """Check the declared sizes: in memory, where scaled values are floats, and in the file."""
    stored = header.get_data_dtype().itemsize
    scaled = header.get_slope_inter() not in ((None, None), (1.0, 0.0), (1.0, None))
    check_size(geometry.canonical_shape, geometry.source, itemsize=max(stored, 8) if scaled else stored)
    size = header.get_data_offset() + math.prod(header.get_data_shape()) * stored
    check_room(size, data_file, deflated=has_ending(data_file, (".gz",)))


def _affine(header: AnalyzeHeader) -> np.ndarray:
    """Return the affine in mm: nibabel's is in the header's unit."""
    affine = header.get_best_affine()
    if isinstance(header, Nifti1Header):
        affine[:3] *= _MILLIMETRES.get(header.get_xyzt_units()[0], 1.0)
    return affine


def _stored_shape(header: AnalyzeHeader) -> tuple[int, ...]:
    return tuple(int(n) for n in header.get_data_shape()[:3])


def _header_of(grid: Geometry) -> Nifti1Header:
    header = Nifti1Header() if max(grid.shape) <= _LONGEST_AXIS else Nifti2Header()
    header.set_data_shape(grid.shape)
    header.set_qform(grid.affine, code="scanner")
    header.set_sform(grid.affine, code="scanner")
    header.set_xyzt_units("mm")
    return header
