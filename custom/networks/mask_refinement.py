"""A second look at the image inside the box, at the mask's own resolution.

Not in the paper: its content prompt reaches the mask only through the 64 x 64 embedding, where a small object covers
few points. Here a small CNN sees the crop of the content prompt and the mask's logits, and corrects these in the box.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from custom.images.frame import IMAGE_SIZE
from custom.networks.content_cnn import LEAKY_SLOPE
from custom.networks.crop_resampling import cut_crops, place_crops
from custom.networks.switched import Switched

#: Side of the crops in pixels.
REFINEMENT_SIZE = 64
_DILATIONS = (1, 1, 2, 4, 8, 1)
_GROUPS = 8
_LARGE_LOGIT = 10.0
#: Scale of the last layer's output, so that it learns at the rate of the other layers.
_UNIT = 5.0


class MaskRefinement(Switched):
    """Crop and logits inside the box -> corrected logits.

    Attributes:
        on: whether the network uses it; stored in checkpoints.

    Example:
        >>> boxes = torch.tensor([[9.0, 9.0, 80.0, 70.0], [0.0, 0.0, 255.0, 255.0]])
        >>> MaskRefinement()(torch.zeros(2, 256, 256), torch.rand(2, 3, 32, 32), boxes).shape
        torch.Size([2, 256, 256])
    """

    def __init__(self, width: int = 32, *, on: bool = True) -> None:
        super().__init__(on=on)
        inputs = (3 + 2 + 1, *[width] * (len(_DILATIONS) - 1))
        self.convs = nn.ModuleList(
            nn.Conv2d(n, width, 3, padding=dilation, dilation=dilation)
            for n, dilation in zip(inputs, _DILATIONS, strict=True)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(_GROUPS, width) for _ in _DILATIONS)
        self.head = nn.Conv2d(width, 1, 1)
        self.start_as_identity()

    def start_as_identity(self) -> None:
        """Make it change nothing until it is trained."""
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, mask_logits: torch.Tensor, crop: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Correct the logits inside the boxes.

        Args:
            mask_logits: Rx256x256.
            crop: image inside each box, Rx3xSxS in [0, 1].
            boxes: Rx4 in pixels of the 256 frame.

        Returns:
            Rx256x256.
        """
        side = crop.shape[-1]
        correction = self.correct(cut_crops(mask_logits.unsqueeze(1), boxes, side), crop, boxes)
        return mask_logits + place_crops(correction, boxes, mask_logits.shape[-1])[:, 0]

    def correct(self, logits: torch.Tensor, crop: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Return what to add to logits inside the boxes: Rx1xSxS, crop Rx3xSxS, boxes Rx4 -> Rx1xSxS."""
        mean = crop.mean(dim=(1, 2, 3), keepdim=True)
        contrast = (crop - mean).square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        longer = (boxes[:, 2:] - boxes[:, :2] + 1).amax(dim=1).clamp(min=1.0)  # R
        size = (1 + (longer / IMAGE_SIZE).log() / 2).view(-1, 1, 1, 1).expand_as(logits)
        bounded = (logits / _LARGE_LOGIT).clamp(-2, 2)
        x = torch.cat([(crop - mean) / (contrast + 0.05), bounded, logits.tanh(), size], dim=1)
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = F.leaky_relu(norm(conv(x)), LEAKY_SLOPE)
            x = y if i == 0 else x + y
        return _UNIT * self.head(x)
