"""A module that a network may have on or off; its checkpoints remember which."""

from __future__ import annotations

import torch
from torch import nn


class Switched(nn.Module):
    """Base of modules that not all weights use.

    Attributes:
        on: whether the network uses it; stored in checkpoints.
    """

    def __init__(self, *, on: bool) -> None:
        super().__init__()
        self.on = on

    def get_extra_state(self) -> torch.Tensor:
        """Return whether it is on, for a checkpoint."""
        return torch.tensor([self.on], dtype=torch.uint8)

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Read it from a checkpoint."""
        self.on = bool(state.any())
