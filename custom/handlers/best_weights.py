"""Keep the weights of the best validation."""

from __future__ import annotations

import os
from pathlib import Path

import ignite.distributed as idist
from ignite.engine import Engine, Events
from torch import nn

from custom.checkpoints.files import write_checkpoint


class BestWeights:
    """Write the network's state dict when a validation is the best so far; only process 0 writes.

    MONAI's ``CheckpointSaver`` can leave half a file after a kill, and forgets the best score at a restart.

    Args:
        path: the file.
        network: the network, not wrapped.
    """

    def __init__(self, *, path: str | os.PathLike[str], network: nn.Module) -> None:
        self.path, self.network = Path(path), network

    def attach(self, engine: Engine) -> None:
        """Attach to a MONAI evaluator with a key metric."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._validated)

    def _validated(self, engine: Engine) -> None:
        if engine.state.best_metric_epoch == engine.state.epoch and idist.get_rank() == 0:
            write_checkpoint(self.path, self.network.state_dict())
