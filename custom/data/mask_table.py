"""Every mask of a data set as one compact table: case -> slices with foreground -> masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from custom.modalities import modality_index


class CaseSlices(Protocol):
    """What the table needs to know of a case."""

    modality: str
    slices: Sequence[tuple[int, Sequence[int]]]  # (z, label ids on that slice)


class MaskTable:
    """Flat numbering of the masks (one label on one slice) of a list of cases.

    Masks are numbered case by case, slice by slice, label by label, in the order given. Only numpy arrays are kept, so
    a million slices take about twenty megabytes and are shared with worker processes at no cost. Slices without a
    label are omitted. Cases without a label keep their number but hold no mask.

    Args:
        cases: the cases; each has ``modality`` (a name of ``custom.modalities``) and ``slices``, a list of
            (z, label ids).

    Attributes:
        modality: (cases,) int64, index into ``MODALITIES``.
        slice_offset: (cases + 1,) int64; the slices of case c are ``slice_offset[c]:slice_offset[c + 1]``.
        mask_offset: (slices + 1,) int64; the masks of slice s are ``mask_offset[s]:mask_offset[s + 1]``.
        z: (slices,) int32, index of the slice in its volume.
        label: (masks,) int32, label id.

    Raises:
        InputError: a modality is not one of the eleven.
    """

    def __init__(self, cases: Sequence[CaseSlices]) -> None:
        self.modality = np.array([modality_index(c.modality, f"cases[{i}]") for i, c in enumerate(cases)], np.int64)
        self.slice_offset = _offsets([sum(1 for _, ids in c.slices if len(ids)) for c in cases])
        self.mask_offset = _offsets([len(ids) for c in cases for _, ids in c.slices if len(ids)])
        self.z = np.fromiter((z for c in cases for z, ids in c.slices if len(ids)), np.int32, self.slice_offset[-1])
        self.label = np.fromiter((i for c in cases for _, ids in c.slices for i in ids), np.int32, len(self))

    def __len__(self) -> int:
        return int(self.mask_offset[-1])

    def locate(self, index: int) -> tuple[int, int, int]:
        """Return (index of the case, z of the slice, label id) of a mask.

        Raises:
            IndexError: ``index`` is outside ``[0, len(table))``.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"mask {index} of {len(self)}")
        row = int(np.searchsorted(self.mask_offset, index, side="right")) - 1
        case = int(np.searchsorted(self.slice_offset, row, side="right")) - 1
        return case, int(self.z[row]), int(self.label[index])


def _offsets(counts: list[int]) -> np.ndarray:
    """Counts of n groups -> n + 1 offsets, int64."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
