"""The stand-in as a PyTorch network, for MONAI's engines."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn

from custom.images.frame import IMAGE_SIZE
from custom.networks.prompt_switches import PromptComponents
from custom.prompts import Prompts


class StandInNetwork(nn.Module):
    """A network for MONAI's engines: its mask is what is brighter than half of the frame's range, inside the box."""

    def __init__(self, **_: object) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(0.5))
        self.components = PromptComponents(clip_text=False, modality_embedding=False, clip_image=False)
        self.crop_size, self.takes_clicks = 8, False
        self.prompt_encoder = SimpleNamespace(click_tokens=False)

    def encode_image(self, image: torch.Tensor) -> torch.Tensor:
        """Return the image, Bx3x256x256."""
        return image

    def forward(self, image: torch.Tensor, prompts: Prompts, **_: object) -> torch.Tensor:
        """Segment BxN boxes in the frame: mask logits BxNx256x256."""
        y, x = torch.meshgrid(torch.arange(IMAGE_SIZE), torch.arange(IMAGE_SIZE), indexing="ij")
        boxes = prompts.boxes
        low, high = boxes[..., None, None, :2].unbind(-1), boxes[..., None, None, 2:].unbind(-1)
        inside = (x >= low[0]) & (x <= high[0]) & (y >= low[1]) & (y <= high[1])
        return torch.where(inside, image[:, :1] - self.threshold, -1.0)

    def decode(self, embedding: torch.Tensor, prompts: Prompts, **_: object) -> SimpleNamespace:
        """Return the masks in the form for ``TorchBackend``."""
        masks = self(embedding, prompts)
        return SimpleNamespace(mask_logits=masks, iou=masks.sigmoid().mean(dim=(2, 3)), modality_logits=None)


def start_nothing(**_: object) -> None:
    """A stand-in for ``start_network``: there are no weights to load and no CLIP."""
