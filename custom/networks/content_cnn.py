"""The CNN on the crop that makes the dense content prompt (MCP-MedSAM, Section 3.2.2 and Figure 3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

LEAKY_SLOPE = 0.1


class ContentBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation and a skip connection: BxCxHxW -> BxCxHxW."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the refined features."""
        y = F.leaky_relu(self.norm1(self.conv1(x)), LEAKY_SLOPE)
        return F.leaky_relu(x + self.norm2(self.conv2(y)), LEAKY_SLOPE)


class ContentCNN(nn.Module):
    """Crop inside the box -> dense prompt: Bx3xHxW in [0, 1] -> BxCxHxW."""

    def __init__(self, width: int = 256, depth: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.Sequential(*(ContentBlock(width) for _ in range(depth)))
        self.head = nn.Conv2d(width, width, 5, padding=2)

    def start_as(self, vector: torch.Tensor) -> None:
        """Make the network return ``vector`` (C) everywhere, for any crop, until it is trained."""
        nn.init.zeros_(self.head.weight)
        with torch.no_grad():
            self.head.bias.copy_(vector)

    def forward(self, crop: torch.Tensor) -> torch.Tensor:
        """Return the dense prompt."""
        return self.head(self.blocks(self.stem(crop)))
