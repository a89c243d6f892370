"""Data sets over prepared cases: one mask an item for training, all masks of a slice an item for evaluation."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np
from monai.data import Dataset
from monai.transforms import apply_transform

from custom.data.mask_table import MaskTable
from custom.data.prepared import CaseRecord
from custom.data.sampler import Draw
from custom.modalities import modality_index


class MaskDataset(Dataset):
    """Item i is mask i of a ``MaskTable``: one label on one slice of one case.

    Args:
        data: prepared cases.
        transform: applied to each item, see ``slice_item``; if the index is a ``Draw``, its seed is set first.
    """

    def __init__(self, data: Sequence[CaseRecord], transform: Callable | None = None) -> None:
        super().__init__(data, transform)
        self.table = MaskTable(data)

    def __len__(self) -> int:
        return len(self.table)

    def _transform(self, index: int) -> object:
        case, z, label_id = self.table.locate(index)
        item = slice_item(self.data[case], z, [label_id])
        if isinstance(index, Draw):
            self.transform.set_random_state(seed=index.seed)
        return item if self.transform is None else apply_transform(self.transform, item)


class SliceDataset(Dataset):
    """Item i is a slice with its masks, the same in every run.

    Args:
        data: prepared cases.
        transform: applied to each item, see ``slice_item``.
        max_slices: largest number of slices of a volume, spread evenly over those with foreground.
        max_masks: largest number of masks of a slice, drawn by the case's name.
    """

    def __init__(
        self,
        data: Sequence[CaseRecord],
        transform: Callable | None = None,
        *,
        max_slices: int = 5,
        max_masks: int = 8,
    ) -> None:
        items = []
        for case in data:
            for i in _spread(len(case.slices), max_slices):
                z, ids = case.slices[i]
                items.append(slice_item(case, z, _draw(ids, max_masks, f"{case.case}/{z}")))
        super().__init__(items, transform)


def slice_item(case: CaseRecord, z: int, label_ids: Sequence[int]) -> dict[str, object]:
    """Describe one slice and some of its labels; the transforms load the arrays from the paths."""
    return {
        "image": str(case.image),
        "label": str(case.label),
        "case": case.case,
        "slice": z,
        "label_ids": list(label_ids),
        "modality": case.modality,
        "modality_index": modality_index(case.modality),
        "dimension": case.dimension,
        "spacing": np.asarray(case.spacing or (1.0, 1.0, 1.0), np.float32),
    }


def _spread(count: int, most: int) -> list[int]:
    """Pick at most ``most`` of ``count`` places, evenly, without favouring the ends."""
    if count <= most:
        return list(range(count))
    return ((np.arange(most) + 0.5) * count / most).astype(int).tolist()


def _draw(ids: Sequence[int], most: int, name: str) -> list[int]:
    """Draw at most ``most`` of the ids, the same ones for the same name."""
    if len(ids) <= most:
        return list(ids)
    return sorted(np.random.RandomState(zlib.crc32(name.encode())).choice(ids, most, replace=False).tolist())
