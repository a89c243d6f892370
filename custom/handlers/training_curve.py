"""The curves of a training in one picture."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import ignite.distributed as idist
from ignite.engine import Engine, Events
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from custom.atomic_write import write_whole

_MOST_POINTS = 2000


class TrainingCurve:
    """Draw the loss terms and the validation scores after every epoch, over the iterations of the training.

    The points are kept in the trainer's state, so that restarts keep them. When there are too many, every second one
    is dropped and new ones are added half as often. Only process 0 draws.

    Args:
        path: the picture, PNG.
        validator: the engine that validates at the end of epochs.
        log: gives {name: value} of the last iteration, "loss" and its terms.
        scores: metrics of the validator to draw.
        interval: iterations between points.
    """

    def __init__(
        self,
        *,
        path: str | os.PathLike[str],
        validator: Engine,
        log: Callable[[], dict[str, float]],
        scores: tuple[str, ...] = ("val_dsc", "val_nsd"),
        interval: int = 10,
    ) -> None:
        self.path, self.validator, self.log = Path(path), validator, log
        self.scores, self.interval = tuple(scores), interval

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, after the handler that runs the validator."""
        engine.state.curve = {"every": self.interval, "losses": [], "scores": []}
        engine.state_dict_user_keys.append("curve")
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration_completed)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._draw)

        def validated(validator: Engine) -> None:
            scores = [validator.state.metrics[name] for name in self.scores]
            engine.state.curve["scores"].append([engine.state.iteration, *scores])

        self.validator.add_event_handler(Events.EPOCH_COMPLETED, validated)

    def _iteration_completed(self, engine: Engine) -> None:
        curve = engine.state.curve
        if engine.state.iteration % curve["every"] == 0:
            curve["losses"].append({"iteration": engine.state.iteration, **self.log()})
            if len(curve["losses"]) > _MOST_POINTS:
                curve["losses"] = curve["losses"][1::2]
                curve["every"] *= 2

    def _draw(self, engine: Engine) -> None:
        if idist.get_rank() != 0:
            return
        curve = engine.state.curve
        figure = Figure(figsize=(10, 4), layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        names = dict.fromkeys(name for point in curve["losses"] for name in point if name != "iteration")
        for name in names:
            points = [(point["iteration"], point[name]) for point in curve["losses"] if name in point]
            left.plot(*zip(*points, strict=True), label=name, linewidth=2 if name == "loss" else 1)
        iterations, *values = zip(*curve["scores"], strict=True) if curve["scores"] else ((), *((),) * len(self.scores))
        for name, series in zip(self.scores, values, strict=True):
            right.plot(iterations, series, marker="o", label=name)
        for axes, title in ((left, "training loss and its terms, unweighted"), (right, "validation, percent")):
            axes.set(title=title, xlabel="iteration")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(alpha=0.3)
            if axes.lines:
                axes.legend()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, lambda file: figure.savefig(file, format="png", dpi=100))
