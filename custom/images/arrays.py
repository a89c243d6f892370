"""Arrays of ``.npz`` files, without pickle and within limits."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable
from os import PathLike

import numpy as np
from numpy.lib import format as npy

from custom.errors import InputError
from custom.images.decoding import check_room, decoding
from custom.limits import BYTES

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_npz_arrays(path: str | PathLike[str], keys: Iterable[str]) -> dict[str, np.ndarray]:
    """Read those arrays of an ``.npz`` file that have one of some names: name -> array.

    Raises:
        InputError: the file cannot be read, an array is not of plain values, or is larger than ``custom.limits``
            allows.
    """
    with decoding(path, "npz of plain arrays"), zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        return {key: _read(archive, f"{key}.npy", path) for key in keys if f"{key}.npy" in names}


def _read(archive: zipfile.ZipFile, name: str, path: str | PathLike[str]) -> np.ndarray:
    if archive.getinfo(name).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(path, name, "an unusual compression", "stored or deflated members, as NumPy writes them")
    with archive.open(name) as member:
        version = npy.read_magic(member)
        if version not in _HEADERS:
            raise InputError(path, name, f"version {version}", "version 1.0 or 2.0, as NumPy writes plain arrays")
        shape, _, dtype = _HEADERS[version](member)
    size = math.prod(shape) * max(dtype.itemsize, 1)  # values of zero bytes take time as well
    BYTES.check(size, path, name)
    check_room(size, path, deflated=True)
    with archive.open(name) as member:
        return npy.read_array(member, allow_pickle=False)
