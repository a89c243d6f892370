"""Label maps: connected components, smallest size, ids 1..n, and which ids are on which slice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from skimage.measure import label as connected_components

from custom.errors import InputError

_ALL_IDS = "*"


class TooSmallError(InputError):
    """There is foreground, but no mask of the smallest size asked for."""


@dataclass(frozen=True)
class Masks:
    """A label map with ids 1..n.

    Attributes:
        label: uint8 or uint16 (Z, H, W).
        names: id -> name, for every id that occurs.
    """

    label: np.ndarray
    names: dict[int, str]


def clean_masks(label: np.ndarray, names: Mapping[int | str, str], *, split: bool, min_size: int, source: str) -> Masks:
    """Keep the named masks of at least ``min_size`` voxels and number them 1..n.

    The order of the source ids is kept; components of one id follow each other in raster order.

    Args:
        label: (Z, H, W) integers, 0 is background.
        names: source id -> name; ``"*"`` names every other id. Ids without a name are dropped.
        split: make every 8-connected component of a picture (Z = 1) a mask of its own.
        min_size: smallest number of pixels or voxels of a mask.
        source: the file to name in an error.

    Raises:
        InputError: no foreground, no named id, or more than 65,535 masks.
        TooSmallError: every named mask is smaller than ``min_size``.
    """
    values, compact, sizes = _compact(label)
    present = np.flatnonzero((sizes > 0) & (values > 0))
    if not len(present):
        raise InputError(source, "label", "no foreground", "at least one id above 0")
    named = np.array([k for k in present if int(values[k]) in names or _ALL_IDS in names], dtype=np.intp)
    if not len(named):
        listed = ", ".join(str(key) for key in names)
        raise InputError(source, "label", f"only ids {values[present][:8].tolist()}", f"at least one of ids {listed}")
    kept = named[sizes[named] >= min_size]
    table = np.zeros(len(values), np.int32)
    table[kept] = np.arange(1, len(kept) + 1)
    whole, owners = table[compact], values[kept]
    if split and len(owners):
        whole, owners = _split(whole, owners, min_size)
    if not len(owners):
        raise TooSmallError(
            source, "label", f"no mask of {min_size} px or more", "a larger mask, or a smaller min_size"
        )
    if len(owners) > np.iinfo(np.uint16).max:
        raise InputError(source, "label", f"{len(owners)} masks", "at most 65535 masks")
    dtype = np.uint8 if len(owners) <= np.iinfo(np.uint8).max else np.uint16
    text = {i: names[int(o)] if int(o) in names else names[_ALL_IDS] for i, o in enumerate(owners, 1)}
    return Masks(whole.astype(dtype), text)


def slice_index(label: np.ndarray) -> list[list]:
    """Return ``[[z, [ids]], ...]`` for the slices of (Z, H, W) with foreground, z and ids ascending."""
    index = []
    for z, plane in enumerate(label):
        ids = np.unique(plane)
        ids = ids[ids > 0].tolist()
        if ids:
            index.append([z, ids])
    return index


def _compact(label: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (values, map, sizes): ``values[map]`` is the label map and ``sizes`` counts each entry of ``values``."""
    highest = int(label.max(initial=0))
    if highest > np.iinfo(np.uint16).max:
        values, compact, sizes = np.unique(label, return_inverse=True, return_counts=True)
        return values, compact.reshape(label.shape), sizes
    sizes = np.zeros(highest + 1, np.int64)
    for plane in label:  # slice by slice, since bincount makes an int64 copy
        sizes += np.bincount(plane.astype(np.intp).ravel(), minlength=highest + 1)
    return np.arange(highest + 1), label, sizes


def _split(whole: np.ndarray, owners: np.ndarray, min_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Split a 1xHxW map with ids 1..n into components; return the map and the source id of each component."""
    parts = connected_components(whole[0], background=0, connectivity=2)  # 1xHxW -> HxW
    sizes = np.bincount(parts.ravel())
    parents = np.zeros(len(sizes), np.int64)
    parents[parts.ravel()] = whole.ravel()
    order = np.argsort(parents, kind="stable")
    kept = order[(parents[order] > 0) & (sizes[order] >= min_size)]
    table = np.zeros(len(sizes), np.int32)
    table[kept] = np.arange(1, len(kept) + 1)
    return table[parts][None], owners[parents[kept] - 1]  # HxW -> 1xHxW
