"""Boxes from masks, as tensors."""

from __future__ import annotations

import torch

from custom.images import boxes


def tight_boxes(masks: torch.Tensor) -> torch.Tensor:
    """Return the tight boxes of non-empty masks, both ends inside: NxHxW -> Nx4 float (x_min y_min x_max y_max)."""
    return torch.from_numpy(boxes.tight_boxes(masks.cpu().numpy())).float()
