"""Rotate and scale a training image with its masks, unless that would lose one."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import RandAffined
from monai.utils import convert_to_tensor


class RandAffineMasksd(RandAffined):
    """MONAI's ``RandAffined`` that returns its input if a mask would move out of the image or shrink to nothing.

    Use it before the box is computed, so that image, mask, box and crop all belong to the moved image.

    Args:
        mask_key: masks NxHxW, one of ``keys``.
        kwargs: arguments of ``RandAffined``.
    """

    def __init__(self, *, mask_key: str = "label", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mask_key = mask_key

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        """Return the moved item, or the unchanged item."""
        moved = super().__call__(data, lazy)
        masks = convert_to_tensor(moved[self.mask_key], dtype=torch.float32, track_meta=False)
        return moved if masks.flatten(1).any(dim=1).all() else dict(data)
