"""Correct a mask by clicks: a small U-Net on the native image around the object.

Not in the paper. The decoder says which object is meant, on a 64 x 64 grid; which pixels belong to it is answered here,
at the resolution of the view, from the clicks, the mask before them and the decoder's mask. As in interactive
segmentation on natural images (RITM, Sofiiuk et al., ICIP 2022, https://arxiv.org/abs/2102.06583), clicks are maps, and
the mask before them is an input.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from custom.images.frame import IMAGE_SIZE
from custom.networks.content_cnn import LEAKY_SLOPE
from custom.networks.crop_resampling import cut_crops, place_crops
from custom.networks.switched import Switched
from custom.prompts import NEGATIVE, NO_POINT, POSITIVE

_WIDTHS = (24, 48, 64, 96)
_GROUPS = 8
#: Radii of a click in pixels of the view: one tells where it is, the other what is near it.
_RADII = (2.0, 10.0)
_LARGE_LOGIT = 10.0
#: Scale of the last layer's output, so that it learns at the rate of the other layers.
_UNIT = 5.0


class _Block(nn.Module):
    """Convolution, normalisation and activation, twice, with a residual around the second: BxCxHxW -> BxC'xH'xW'."""

    def __init__(self, inputs: int, width: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride=stride, padding=1)
        self.norm1 = nn.GroupNorm(_GROUPS, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.norm2 = nn.GroupNorm(_GROUPS, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.leaky_relu(self.norm1(self.conv1(x)), LEAKY_SLOPE)
        return x + F.leaky_relu(self.norm2(self.conv2(x)), LEAKY_SLOPE)


class MaskCorrection(Switched):
    """View, clicks, the mask before them and the decoder's mask -> corrected logits and a change of the predicted IoU.

    Attributes:
        on: whether the weights were trained for clicks; stored in checkpoints.

    Example:
        >>> boxes = torch.tensor([[9.0, 9.0, 80.0, 70.0]])
        >>> points, labels = torch.tensor([[[40.0, 30.0]]]), torch.tensor([[1]])
        >>> logits, iou = MaskCorrection()(torch.zeros(1, 256, 256), torch.rand(1, 3, 128, 128), boxes, points, labels)
        >>> logits.shape, iou.shape
        (torch.Size([1, 256, 256]), torch.Size([1]))
    """

    def __init__(self, *, on: bool = True) -> None:
        super().__init__(on=on)
        channels = 3 + 2 + 2 + 2 * len(_RADII) + 1  # image, decoder's mask, mask before, clicks, size of the view
        self.down = nn.ModuleList(
            _Block(inputs, width, stride=1 if i == 0 else 2)
            for i, (inputs, width) in enumerate(zip((channels, *_WIDTHS), _WIDTHS, strict=False))
        )
        self.deep = _Block(_WIDTHS[-1], _WIDTHS[-1])
        self.reduce = nn.ModuleList(nn.Conv2d(w, n, 1) for n, w in zip(_WIDTHS, _WIDTHS[1:], strict=False))
        self.up = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for width in _WIDTHS[:-1])
        self.norms = nn.ModuleList(nn.GroupNorm(_GROUPS, width) for width in _WIDTHS[:-1])
        self.head = nn.Conv2d(_WIDTHS[0], 1, 1)
        self.iou_head = nn.Linear(_WIDTHS[-1], 1)
        self.start_as_identity()

    def start_as_identity(self) -> None:
        """Make it change nothing until it is trained."""
        for layer in (self.head, self.iou_head):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        mask_logits: torch.Tensor,
        views: torch.Tensor,
        view_boxes: torch.Tensor,
        points: torch.Tensor | None = None,
        point_labels: torch.Tensor | None = None,
        masks: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Correct the logits inside the views.

        Args:
            mask_logits: of the decoder, Rx256x256.
            views: image around each object, Rx3xVxV in [0, 1].
            view_boxes: where the views were cut, Rx4 in pixels of the 256 frame.
            points: clicks, RxPx2 in pixels of the 256 frame.
            point_labels: RxP, see ``custom.prompts``.
            masks: logits of the mask before the clicks, Rx256x256; zeros where there is none.

        Returns:
            logits Rx256x256, and what to add to the predicted IoU, R; objects without clicks and mask keep theirs.
        """
        before = torch.zeros_like(mask_logits) if masks is None else masks.to(mask_logits.dtype)
        maps = cut_crops(torch.stack([mask_logits, before], dim=1), view_boxes, views.shape[-1])  # Rx2xVxV
        # In float32: so small a network is no faster in half precision on a CPU, and pixels are exact.
        with torch.autocast(views.device.type, enabled=False):
            correction, iou = self.correct(maps[:, :1], maps[:, 1:], views, view_boxes, points, point_labels)
        given = _given(before, point_labels)
        correction = correction * given[:, None, None, None]
        return mask_logits + place_crops(correction, view_boxes, mask_logits.shape[-1])[:, 0], iou * given

    def correct(
        self,
        logits: torch.Tensor,
        before: torch.Tensor,
        views: torch.Tensor,
        view_boxes: torch.Tensor,
        points: torch.Tensor | None,
        point_labels: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what to add to logits in the view (Rx1xVxV) and to the IoU (R); logits and mask before Rx1xVxV."""
        mean = views.mean(dim=(1, 2, 3), keepdim=True)
        contrast = (views - mean).square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        longer = (view_boxes[:, 2:] - view_boxes[:, :2] + 1).amax(dim=1).clamp(min=1.0)  # R
        size = (1 + (longer / IMAGE_SIZE).log() / 2).view(-1, 1, 1, 1).expand_as(logits)
        parts = [(views - mean) / (contrast + 0.05)]
        for values in (logits, before):
            parts += [(values / _LARGE_LOGIT).clamp(-2, 2), values.tanh()]
        parts += [click_maps(points, point_labels, view_boxes, views.shape[-1]), size]
        x = torch.cat(parts, dim=1)
        levels = []
        for block in self.down:
            x = block(x)
            levels.append(x)
        x = self.deep(x)
        iou = self.iou_head(x.mean(dim=(2, 3)))[:, 0]
        for level, reduce, conv, norm in list(zip(levels, self.reduce, self.up, self.norms, strict=False))[::-1]:
            x = level + F.interpolate(reduce(x), scale_factor=2.0, mode="nearest")
            x = x + F.leaky_relu(norm(conv(x)), LEAKY_SLOPE)
        return _UNIT * self.head(x), iou


def _given(masks: torch.Tensor, point_labels: torch.Tensor | None) -> torch.Tensor:
    """Return which objects have a mask or a click, R."""
    given = (masks != 0).flatten(1).any(dim=1)
    return given if point_labels is None else given | (point_labels != NO_POINT).any(dim=1)


def click_maps(
    points: torch.Tensor | None, point_labels: torch.Tensor | None, view_boxes: torch.Tensor, side: int
) -> torch.Tensor:
    """Draw clicks as smooth discs into views: positive ones and negative ones, small and wide, Rx4xVxV in [0, 1]."""
    rows = len(view_boxes)
    if points is None:
        return view_boxes.new_zeros(rows, 2 * len(_RADII), side, side)
    low, high = view_boxes[:, None, :2], view_boxes[:, None, 2:] + 1
    at = (points + 0.5 - low) / (high - low) * side - 0.5  # RxPx2, in pixels of the view
    grid = torch.arange(side, device=view_boxes.device, dtype=view_boxes.dtype)
    x, y = ((at[:, :, i : i + 1] - grid).square() for i in (0, 1))  # RxPxV
    maps = []
    for label in (POSITIVE, NEGATIVE):
        chosen = (point_labels == label).to(x.dtype).unsqueeze(2)
        for radius in _RADII:
            # A disc is the product of a column and a row; the largest one counts where several meet.
            column, row = ((-values / (2 * radius**2)).exp() for values in (y, x))
            maps.append(((column * chosen).unsqueeze(3) * row.unsqueeze(2)).amax(dim=1))  # RxPxVxV -> RxVxV
    return torch.stack(maps, dim=1)
