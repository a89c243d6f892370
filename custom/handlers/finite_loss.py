"""Stop a training whose loss is no longer a number."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ignite.engine import Engine, Events
from monai.engines import IterationEvents

from custom.errors import InputError
from custom.handlers.host_copy import HostCopy


class FiniteLoss:
    """Stop with one line that names the batch when a loss is NaN or infinite.

    On a CPU this happens before the weights change. On a GPU a loss is read one iteration late, so that no step waits
    for it. All errors of the engine are raised as they are: attach this before ``StatsHandler``, which would log a
    traceback each time.
    """

    def __init__(self) -> None:
        self._pending: tuple[HostCopy, int, str] | None = None

    def attach(self, engine: Engine) -> None:
        """Attach to a MONAI trainer."""
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._loss_completed)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._check)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._raise)

    def _loss_completed(self, engine: Engine) -> None:
        self._check(engine)
        loss = engine.state.output["loss"]
        self._pending = HostCopy(loss), engine.state.iteration, batch_names(engine.state.batch)
        if not loss.is_cuda:
            self._check(engine)

    def _check(self, _: Engine) -> None:
        if self._pending is None:
            return
        (loss, iteration, names), self._pending = self._pending, None
        value = loss.read()
        if not math.isfinite(value):
            remedy = "a finite number; look at these cases, or start from last.pt with a lower --lr"
            raise InputError(f"iteration {iteration}", f"loss of {names}", value, remedy)

    @staticmethod
    def _raise(_: Engine, error: BaseException) -> None:
        raise error


def batch_names(batch: Mapping[str, object]) -> str:
    """Return the cases of a collated batch, with their slices if known: "CT_7 slice 3, US_1 slice 0"."""
    cases = batch.get("case", ["a batch without names"])
    slices = batch.get("slice")
    if slices is None:
        return ", ".join(cases)
    return ", ".join(f"{case} slice {int(z)}" for case, z in zip(cases, slices, strict=True))
