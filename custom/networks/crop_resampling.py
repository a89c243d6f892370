"""Cut crops out of maps at boxes, and put results on crops back in their places.

Resampling is bilinear, with anti-aliasing when reducing, as in Pillow. It is written as products with two matrices, so
that it accepts boxes of any place and size, has a gradient, and can be exported to every format.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from custom.images.frame import IMAGE_SIZE

#: Lower and upper edges of boxes in pixels of the frame, Rx1, and the number N of points -> weights RxTxN.
Weights = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]


def cut_crops(maps: torch.Tensor, boxes: torch.Tensor, size: int) -> torch.Tensor:
    """Cut a map over the frame at boxes and resize the inside.

    Args:
        maps: RxCxHxW over the 256 frame.
        boxes: Rx4 x_min y_min x_max y_max in pixels of the 256 frame, both ends inside.
        size: side S of the crops.

    Returns:
        RxCxSxS.
    """

    def weights(low: torch.Tensor, high: torch.Tensor, count: int) -> torch.Tensor:
        step = (high - low) / size * (count / IMAGE_SIZE)  # points of the map per pixel of the crop, Rx1
        at = low * (count / IMAGE_SIZE) + (torch.arange(size, device=low.device) + 0.5) * step - 0.5
        return _triangles(at, step, count)

    return _resample(maps, boxes, weights)


def place_crops(crops: torch.Tensor, boxes: torch.Tensor, size: int) -> torch.Tensor:
    """Resize each crop to its box and put it there, zeros around it.

    Args:
        crops: RxCxSxS, of what is inside the boxes.
        boxes: Rx4 x_min y_min x_max y_max in pixels of the 256 frame, both ends inside.
        size: side of the grid over the frame; points outside the box get zero.

    Returns:
        RxCxsizexsize.

    Example:
        >>> place_crops(torch.ones(1, 8, 32, 32), torch.tensor([[0.0, 0.0, 63.0, 127.0]]), 64)[0, 0].sum()
        tensor(512.)
    """

    def weights(low: torch.Tensor, high: torch.Tensor, count: int) -> torch.Tensor:
        centres = (torch.arange(size, device=low.device) + 0.5) * (IMAGE_SIZE / size)  # in pixels of the frame
        density = count / (high - low)  # pixels of the crop per pixel of the frame, Rx1
        inside = ((centres > low) & (centres < high)).unsqueeze(2)
        return _triangles((centres - low) * density - 0.5, density * (IMAGE_SIZE / size), count) * inside

    return _resample(crops, boxes, weights)


def _resample(maps: torch.Tensor, boxes: torch.Tensor, weights: Weights) -> torch.Tensor:
    """Multiply maps RxCxHxW with the weights of rows and columns for the edges of boxes, in float32."""
    with torch.autocast(maps.device.type, enabled=False):
        low, high = boxes[:, :2].float(), boxes[:, 2:].float() + 1
        rows, columns = (weights(low[:, i : i + 1], high[:, i : i + 1], maps.shape[-1 - i]) for i in (1, 0))
        return rows.unsqueeze(1) @ maps.float() @ columns.unsqueeze(1).transpose(2, 3)


def _triangles(at: torch.Tensor, step: torch.Tensor, count: int) -> torch.Tensor:
    """Return the weight of each of ``count`` points at positions between them, RxT -> RxTxcount; each sums to 1.

    A triangle reaches one point to either side, or one step (Rx1) if that is more.
    """
    distance = (at.unsqueeze(2) - torch.arange(count, device=at.device)).abs()
    weights = (1 - distance / step.clamp(min=1.0).unsqueeze(2)).clamp(min=0.0)
    return weights / weights.sum(dim=2, keepdim=True).clamp(min=1e-6)
