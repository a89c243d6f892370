"""End a training cleanly on SIGTERM or SIGINT."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType

import ignite.distributed as idist
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.apps.utils import get_logger

from custom.handlers.host_copy import HostCopy
from custom.handlers.restarts import weights_updated

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopOnSignal:
    """On SIGTERM or SIGINT, end the run when the running step is done; a second signal ends it at once.

    ``Restarts`` then saves, and ``leave_if_stopped`` ends the program with code 143 (SIGTERM) or 130 (SIGINT). A
    running validation is cut short, since a restart repeats it. Several processes agree on the step at which they
    stop, which is the one after the first signal, and let a validation finish.

    Args:
        validator: the engine that validates in between.
    """

    def __init__(self, *, validator: Engine) -> None:
        self.validator = validator
        self.logger = get_logger(type(self).__name__)
        self._trainer: Engine | None = None
        self._received = self._agreed = 0
        self._late: HostCopy | None = None
        self._previous: dict[int, object] = {}

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        self._trainer = engine
        engine.state.stopped_by = None
        engine.add_event_handler(Events.STARTED, self._listen)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration_completed)
        engine.add_event_handler(Events.COMPLETED, self._stop_listening)
        self.validator.add_event_handler(Events.ITERATION_COMPLETED, self._slice_validated)

    def _listen(self, _: Engine) -> None:
        self._received = self._agreed = 0
        self._late = None
        if threading.current_thread() is threading.main_thread():  # only this thread may set signal handlers
            self._previous = {number: signal.signal(number, self._on_signal) for number in SIGNALS}

    def _stop_listening(self, _: Engine | None = None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._received = number
        self._stop_listening()

    def _iteration_completed(self, engine: Engine) -> None:
        if idist.get_world_size() == 1:
            self._agreed = self._received
        else:
            signals = torch.full((), self._received, device=engine.state.device)
            dist.all_reduce(signals, op=dist.ReduceOp.MAX)
            if self._late is not None:
                self._agreed = int(self._late.read())
            self._late = HostCopy(signals)
        if self._agreed and weights_updated(engine):
            self._stop(engine)

    def _slice_validated(self, validator: Engine) -> None:
        if self._received and idist.get_world_size() == 1:
            self._agreed = self._received
            validator.terminate()
            self._stop(self._trainer)

    def _stop(self, trainer: Engine) -> None:
        self.logger.info("Stopped by %s", signal.Signals(self._agreed).name)
        trainer.state.stopped_by = self._agreed
        trainer.terminate()


def leave_if_stopped(*, trainer: Engine) -> None:
    """End the program with 128 + the signal's number if a signal ended the run, as a shell reports it."""
    if trainer.state.stopped_by is not None:
        sys.exit(128 + trainer.state.stopped_by)
