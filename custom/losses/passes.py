"""The loss of a training with clicks: a mean over the passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from custom.losses.mcp_loss import MCPMedSAMLoss


class MeanOverPasses(nn.Module):
    """Mean of a loss over the passes of a training with clicks; with one pass that loss itself.

    Args:
        loss: the loss of one pass.

    Attributes:
        dice: Dice loss after 0, 1, ... clicks in the last call, detached scalars; empty with one pass.
    """

    def __init__(self, loss: MCPMedSAMLoss) -> None:
        super().__init__()
        self.loss = loss
        self.dice: list[Tensor] = []

    def forward(self, output: Any, target: Mapping[str, Tensor]) -> Tensor:
        """Return the mean, a float32 scalar.

        Args:
            output: the network's output, or a list of outputs, one for each pass.
            target: as the loss of one pass takes it.
        """
        self.dice = []
        if not isinstance(output, Sequence) or hasattr(output, "mask_logits"):
            return self.loss(output, target)
        losses, terms = [], []
        for single in output:
            losses.append(self.loss(single, target))
            terms.append(self.loss.terms)
        self.dice = [term["dice"] for term in terms]
        self.loss.terms = {name: torch.stack([term[name] for term in terms]).mean() for name in terms[0]}
        return torch.stack(losses).mean()

    def log(self, _: object = None) -> dict[str, float]:
        """Return what the loss of one pass logs, as means, and the Dice loss after each number of clicks."""
        return self.loss.log() | {f"dice after {k}": value.item() for k, value in enumerate(self.dice)}
