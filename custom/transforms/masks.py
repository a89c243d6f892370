"""Resize masks to the network's frame."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from custom.images.frame import IMAGE_SIZE, Frame


def masks_to_frame(masks: torch.Tensor, frame: Frame) -> torch.Tensor:
    """Resize and pad binary masks: NxHxW -> Nx256x256 uint8; a mask with at least one pixel does not become empty."""
    values = masks.to(torch.uint8)
    framed = F.interpolate(values.unsqueeze(0), size=frame.content, mode="nearest-exact")[0]
    vanished = framed.flatten(1).amax(dim=1) == 0  # nearest sampling can miss a small mask; pooling cannot
    if vanished.any():
        framed[vanished] = F.adaptive_max_pool2d(values[vanished].float(), frame.content).to(torch.uint8)
    height, width = frame.content
    return F.pad(framed, (0, IMAGE_SIZE - width, 0, IMAGE_SIZE - height))
