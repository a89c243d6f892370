"""The output of a training step, as MONAI's trackers read it."""

from __future__ import annotations

from ignite.engine import Engine
from monai.engines import IterationEvents


class LossAlone:
    """Reduce a step's output to the loss, as a list of one item.

    MONAI's handlers expect the list that decollating makes (``--tracking mlflow`` reads the loss of its first item).
    The images and predictions are not needed here and would stay in memory during the next step.
    """

    def attach(self, engine: Engine) -> None:
        """Attach to a MONAI trainer that does not decollate."""
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._model_completed)

    @staticmethod
    def _model_completed(engine: Engine) -> None:
        engine.state.output = [{"loss": engine.state.output["loss"].detach()}]
