"""MONAI's simple inferer with bfloat16 where wanted: its engines know autocast on CUDA alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from monai.inferers import SimpleInferer


class AutocastInferer(SimpleInferer):
    """Run the network under bfloat16 autocast on whatever device its input is on.

    Args:
        enabled: without it this is MONAI's ``SimpleInferer``. bfloat16 keeps float32's range, so no loss scaling is
            needed; on processors with its instructions a training step takes about half the time.
    """

    def __init__(self, *, enabled: bool = False) -> None:
        super().__init__()
        self.enabled = enabled

    def __call__(
        self, inputs: torch.Tensor, network: Callable, *args: object, **kwargs: object
    ) -> torch.Tensor | tuple:
        """Return ``network(inputs, *args, **kwargs)``."""
        if not self.enabled:  # an outer autocast of the engine stays as it is
            return super().__call__(inputs, network, *args, **kwargs)
        with torch.autocast(inputs.device.type, torch.bfloat16):
            return super().__call__(inputs, network, *args, **kwargs)
