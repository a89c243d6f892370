"""MONAI's simple inferer with optional bfloat16: MONAI's engines support autocast on CUDA only."""

from __future__ import annotations

from collections.abc import Callable

import torch
from monai.inferers import SimpleInferer


class AutocastInferer(SimpleInferer):
    """Run the network under bfloat16 autocast on the device of its input.

    Args:
        enabled: False makes this MONAI's ``SimpleInferer``. bfloat16 has the range of float32, so no loss scaling is
            needed; on processors with bfloat16 instructions a training step takes about half the time.
    """

    def __init__(self, *, enabled: bool = False) -> None:
        super().__init__()
        self.enabled = enabled

    def __call__(
        self, inputs: torch.Tensor, network: Callable, *args: object, **kwargs: object
    ) -> torch.Tensor | tuple:
        """Return ``network(inputs, *args, **kwargs)``."""
        if not self.enabled:  # keep an outer autocast of the engine
            return super().__call__(inputs, network, *args, **kwargs)
        with torch.autocast(inputs.device.type, torch.bfloat16):
            return super().__call__(inputs, network, *args, **kwargs)
