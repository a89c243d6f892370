"""Read a value from the device without making the device wait."""

from __future__ import annotations

import torch


class HostCopy:
    """A scalar on its way from the device to the host; read it a step later, when it has arrived.

    ``Tensor.item`` waits for all work queued on the device, this only for the copy.

    Args:
        value: a scalar tensor on any device.
    """

    def __init__(self, value: torch.Tensor) -> None:
        self._value = value.detach().to("cpu", non_blocking=True)  # into pinned memory
        self._copied = torch.cuda.Event() if value.is_cuda else None
        if self._copied is not None:
            self._copied.record()

    def read(self) -> float:
        """Wait for the copy and return the value."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._value.item()
