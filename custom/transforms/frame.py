"""The network's 256 x 256 frame, and the way there and back.

A native image is scaled so that its longer side is 256 pixels and padded at the right and the bottom, as LiteMedSAM
does. Pixel (x, y) covers [x, x + 1) x [y, y + 1), and boxes hold both their end pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from custom.networks.tiny_vit import IMAGE_SIZE


@dataclass(frozen=True)
class Frame:
    """Geometry of one image of a native height and width.

    Example:
        >>> Frame(512, 256).boxes_to_frame(torch.tensor([[0.0, 0.0, 255.0, 511.0]]))
        tensor([[ -0.2500,  -0.2500, 127.2500, 255.2500]])
    """

    height: int
    width: int

    @property
    def scale(self) -> float:
        """Frame pixels for a native pixel."""
        return IMAGE_SIZE / max(self.height, self.width)

    @property
    def content(self) -> tuple[int, int]:
        """Height and width of the frame's part that shows the image; the rest is padding."""
        return max(1, round(self.height * self.scale)), max(1, round(self.width * self.scale))

    def _pad(self, x: torch.Tensor) -> torch.Tensor:
        height, width = self.content
        return F.pad(x, (0, IMAGE_SIZE - width, 0, IMAGE_SIZE - height))

    def image_to_frame(self, image: torch.Tensor) -> torch.Tensor:
        """Resize, scale the values to [0, 1] by minimum and maximum, pad: CxHxW -> Cx256x256 float."""
        small = resize(image, self.content)
        low, high = small.amin(), small.amax()
        return self._pad((small - low) / (high - low).clamp(min=1e-8))

    def masks_to_frame(self, masks: torch.Tensor) -> torch.Tensor:
        """Resize and pad binary masks: NxHxW -> Nx256x256 uint8; no mask that holds a pixel becomes empty."""
        values = masks.float().unsqueeze(0)
        nearest = F.interpolate(values, size=self.content, mode="nearest-exact")[0]
        covering = F.adaptive_max_pool2d(values, self.content)[0]  # keeps what nearest sampling can miss
        vanished = nearest.flatten(1).amax(dim=1) == 0
        return self._pad(torch.where(vanished[:, None, None], covering, nearest)).to(torch.uint8)

    def boxes_to_frame(self, boxes: torch.Tensor) -> torch.Tensor:
        """Map pixel positions: ...x4 native -> ...x4 in the frame."""
        return (boxes + 0.5) * self.scale - 0.5

    def logits_to_native(self, logits: torch.Tensor) -> torch.Tensor:
        """Cut the padding off and resize back: Nx256x256 -> NxHxW."""
        height, width = self.content
        size = (self.height, self.width)
        return F.interpolate(logits[None, :, :height, :width], size=size, mode="bilinear")[0]


def resize(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize with anti-aliasing: CxHxW -> CxH'xW' float."""
    return F.interpolate(image.float().unsqueeze(0), size=size, mode="bilinear", antialias=True)[0]


def crop_box(image: torch.Tensor, box: torch.Tensor, size: int) -> torch.Tensor:
    """Cut the native image inside a box, last row and column included: CxHxW in 0..255 -> CxSxS in [0, 1].

    Args:
        image: CxHxW.
        box: x_min, y_min, x_max, y_max in native pixels; parts outside the image are left away.
        size: side S of the crop.
    """
    height, width = image.shape[-2:]
    x_min, y_min, x_max, y_max = (int(v) for v in box.round().tolist())
    x_min, y_min = min(max(x_min, 0), width - 1), min(max(y_min, 0), height - 1)
    inside = image[:, y_min : max(y_max, y_min) + 1, x_min : max(x_max, x_min) + 1]
    return resize(inside, (size, size)) / 255
