"""Label maps: objects painted to one map, connected components, smallest size, ids 1..n, and the ids of each slice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from skimage.measure import label as connected_components

from custom.errors import InputError
from custom.limits import BYTES

_ALL_IDS = "*"


class TooSmallError(InputError):
    """There is foreground, but no mask of at least the smallest size."""


@dataclass(frozen=True)
class CleanMasks:
    """A label map with ids 1..n.

    Attributes:
        label: uint8 or uint16 (Z, H, W).
        names: id -> name, for every id that occurs.
    """

    label: np.ndarray
    names: dict[int, str]


def clean_masks(
    label: np.ndarray, names: Mapping[int | str, str], *, split: bool, min_size: int, source: str
) -> CleanMasks:
    """Keep the named masks of at least ``min_size`` voxels and number them 1..n.

    The order of the source ids is kept; components of one id follow each other in raster order.

    Args:
        label: (Z, H, W) integers, 0 is background.
        names: source id -> name; ``"*"`` names every other id. Ids without a name are dropped.
        split: make every connected component a separate mask: 8-connected in a picture (Z = 1), 26-connected in a
            volume.
        min_size: smallest number of pixels or voxels of a mask.
        source: the file to name in an error.

    Raises:
        InputError: no foreground, no named id, or more than 65,535 masks.
        TooSmallError: every named mask is smaller than ``min_size``.
    """
    box = _foreground_box(label)  # most voxels are background, and only the rest takes time and memory
    values, compact, sizes = _compact(label[box])
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
    cleaned = np.zeros(label.shape, dtype)
    cleaned[box] = whole
    return CleanMasks(cleaned, text)


def slice_index(label: np.ndarray, max_masks: int | None = None) -> list[list]:
    """Return ``[[z, [ids]], ...]`` for the slices with foreground, z and ids ascending.

    Args:
        label: uint8 or uint16 (Z, H, W), as ``clean_masks`` returns it.
        max_masks: keep at most this number of ids of a slice, the largest on it (of equal ones the lower id); None
            keeps all.
    """
    index = []
    box = _foreground_box(label)
    for z, plane in enumerate(label[box], box[0].start):
        sizes = np.bincount(plane.ravel())
        ids = np.flatnonzero(sizes[1:]) + 1
        if max_masks is not None and len(ids) > max_masks:
            ids = np.sort(ids[np.argsort(-sizes[ids], kind="stable")[:max_masks]])
        if len(ids):
            index.append([z, ids.tolist()])
    return index


def paint(objects: Iterable[np.ndarray], shape: tuple[int, ...], source: str) -> np.ndarray:
    """Paint objects that may overlap into one label map, largest first, so that the smaller one lies on top.

    Args:
        objects: for each object, the flat indices of its pixels in an array of ``shape``. Of two of the same size the
            later one is on top.
        shape: shape of the label map.
        source: the file to name in an error.

    Returns:
        int32 array of ``shape``; object k has the id k + 1. Objects without pixels, or covered by others, do not occur.

    Raises:
        InputError: all objects together are larger than ``custom.limits`` allows.

    Example:
        >>> paint([np.array([1]), np.array([0, 1, 2])], (1, 1, 4), "a.json").tolist()
        [[[2, 1, 2, 0]]]
    """
    kept, held = [], 0
    for pixels in objects:
        held += pixels.nbytes
        BYTES.check(held, source, "objects")
        kept.append(pixels)
    label = np.zeros(shape, np.int32)
    for k in np.argsort([-len(pixels) for pixels in kept], kind="stable"):
        label.flat[kept[k]] = k + 1
    return label


def _foreground_box(label: np.ndarray) -> tuple[slice, slice, slice]:
    """Return the smallest box of (Z, H, W) that holds every id; empty if there is none."""
    plane = label.any(axis=0)  # ZxHxW -> HxW
    sides = (np.flatnonzero(side) for side in (label.any(axis=(1, 2)), plane.any(axis=1), plane.any(axis=0)))
    return tuple(slice(int(side[0]), int(side[-1]) + 1) if len(side) else slice(0, 0) for side in sides)


def _compact(label: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (values, map, sizes): ``values[map]`` is the label map and ``sizes`` counts each entry of ``values``."""
    highest = int(label.max(initial=0))
    if highest > np.iinfo(np.uint16).max:
        values, compact, sizes = np.unique(label, return_inverse=True, return_counts=True)
        return values, compact.reshape(label.shape), sizes
    sizes = np.zeros(highest + 1, np.int64)
    for plane in label:  # slice by slice, since bincount converts its input to int64
        sizes += np.bincount(plane.astype(np.intp).ravel(), minlength=highest + 1)
    return np.arange(highest + 1), label, sizes


def _split(whole: np.ndarray, owners: np.ndarray, min_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Split a ZxHxW map with ids 1..n into components; return the map and the source id of each component."""
    parts = connected_components(whole, background=0, connectivity=whole.ndim)
    sizes = np.bincount(parts.ravel())
    parents = np.zeros(len(sizes), np.int64)
    parents[parts.ravel()] = whole.ravel()
    order = np.argsort(parents, kind="stable")
    kept = order[(parents[order] > 0) & (sizes[order] >= min_size)]
    table = np.zeros(len(sizes), np.int32)
    table[kept] = np.arange(1, len(kept) + 1)
    return table[parts], owners[parents[kept] - 1]
