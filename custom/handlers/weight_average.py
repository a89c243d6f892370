"""Validate and ship an exponential moving average of the weights."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine, Events
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from custom.errors import InputError
from custom.handlers.restarts import weights_updated


class WeightAverage:
    """The average of a network's weights over the optimizer's steps, by torch's ``AveragedModel``.

    After step t the average is decay * average + (1 - decay) * weights, after the first the weights themselves. The
    running statistics of batch normalisation are averaged too, so that they match the averaged weights. Counters are
    copied, and frozen weights stay the same bit for bit.

    Under ``DistributedDataParallel`` every process averages the same weights; pass the network without its wrapper.

    Args:
        network: the network that is trained, with its first weights already loaded.
        decay: for instance 0.999; None keeps no average.

    Attributes:
        network: the network to validate and to ship: the average, or the network itself if ``decay`` is None.
        saved: what ``Restarts`` must save beside the network: {"ema": the average}, or {}.

    Raises:
        InputError: a decay that is not above 0 and below 1.
    """

    def __init__(self, *, network: nn.Module, decay: float | None) -> None:
        if decay is not None and not 0 < decay < 1:
            raise InputError("arguments", "ema", decay, "None, or a decay above 0 and below 1")
        self._trained, self.network = network, network
        self._average: AveragedModel | None = None
        self.saved: dict[str, Any] = {}
        if decay is not None:
            self._average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
            self.network = self._average.module
            self.saved = {"ema": self._average}

    def update(self) -> None:
        """Add the weights of one more step to the average, if there is one."""
        if self._average is None:
            return
        self._average.update_parameters(self._trained)
        for mean, value in zip(self.network.buffers(), self._trained.buffers(), strict=True):
            if not value.is_floating_point():  # torch would round the mean of two counters down
                mean.copy_(value)


class UpdateAverage:
    """Keep a ``WeightAverage`` up to date. Attach it before ``Restarts``.

    Args:
        average: the average.
    """

    def __init__(self, *, average: WeightAverage) -> None:
        self.average = average

    def attach(self, engine: Engine) -> None:
        """Attach to a MONAI trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration_completed)

    def _iteration_completed(self, engine: Engine) -> None:
        if weights_updated(engine):  # else gradients are being accumulated
            self.average.update()
