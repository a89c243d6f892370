"""Stop a training that no longer improves."""

from __future__ import annotations

from ignite.engine import Engine, Events
from ignite.handlers import EarlyStopping

from custom.errors import InputError


class EarlyStop:
    """ignite's ``EarlyStopping`` on the validator's key metric; restarts keep its state as part of the trainer's.

    Args:
        validator: MONAI evaluator with a key metric.
        patience: number of validations without a better key metric after which the training ends; None: never.

    Raises:
        InputError: a patience below 1.
    """

    def __init__(self, *, validator: Engine, patience: int | None) -> None:
        if patience is not None and patience < 1:
            raise InputError("arguments", "patience", patience, "None, or a number of validations from 1")
        self.validator, self.patience = validator, patience

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer that runs the validator."""
        if self.patience is None:
            return
        stopping = EarlyStopping(self.patience, _key_metric, engine)

        def validated(validator: Engine) -> None:
            stopping.load_state_dict(engine.state.early_stopping)
            stopping(validator)
            engine.state.early_stopping = dict(stopping.state_dict())

        def stay_stopped(trainer: Engine) -> None:
            if trainer.state.early_stopping["counter"] >= self.patience:
                trainer.terminate()

        engine.state.early_stopping = dict(stopping.state_dict())
        engine.state_dict_user_keys.append("early_stopping")
        engine.add_event_handler(Events.EPOCH_STARTED, stay_stopped)
        self.validator.add_event_handler(Events.EPOCH_COMPLETED, validated)


def _key_metric(validator: Engine) -> float:
    return validator.state.metrics[validator.state.key_metric_name]
