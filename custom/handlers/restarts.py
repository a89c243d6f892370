"""Checkpoints from which a training resumes as if it had never been interrupted."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.apps.utils import get_logger

from custom.atomic_write import remove_left_over
from custom.checkpoints.files import read_checkpoint, write_checkpoint
from custom.data.clip_features import index_digest
from custom.errors import InputError
from custom.handlers.finite_loss import batch_names
from custom.handlers.random_state import get_random_state, set_random_state

LAST, PREVIOUS = "last.pt", "previous.pt"
_BEST = ("best_metric", "best_metric_epoch")
_KEYS = {"trainer", "validator", "scaler", "random", "epoch_done", "dataset", "config"}


class Restarts:
    """Save the whole state of a training and resume from it: an interrupted run ends with the weights of one run.

    ``last.pt`` is written every ``interval`` iterations, after the last iteration of an epoch, again when the epoch's
    validation is done, and when the run is stopped; the one before it is kept as ``previous.pt``. It holds the objects
    of ``save_dict``, the state of the trainer (iteration, epoch, what handlers keep there) and of its gradient scaler,
    the best validation, the random state of every process, a digest of the data set's index and the configuration.
    While gradients are accumulated, between two steps of the optimizer, nothing is saved.

    Everything random in a step that does not come from the global generators must follow from the iteration: the
    sampler's ``set_epoch`` takes the epoch and the place to begin at, and each draw holds the seed of its transforms.

    Attach it after all other handlers. All processes must attach it; only process 0 writes.

    Args:
        save_dir: folder of the checkpoints.
        save_dict: objects with ``state_dict`` and ``load_state_dict``; "model" is the network, not wrapped.
        validator: MONAI evaluator that runs at the end of epochs.
        dataset_dir: folder of the prepared set.
        config: the configuration as text, for whoever reads the checkpoint.
        interval: iterations between checkpoints.
        resume: resume from the last undamaged checkpoint in the folder, or start from the beginning if it has none.

    Raises:
        InputError: when the run starts: every checkpoint is damaged, or the last one is of another data set, another
            number of iterations an epoch, or another network or optimizer; when saving: weights that are not finite.
    """

    def __init__(
        self,
        *,
        save_dir: str | os.PathLike[str],
        save_dict: Mapping[str, Any],
        validator: Engine,
        dataset_dir: str | os.PathLike[str],
        config: str = "{}",
        interval: int = 100,
        resume: bool = False,
    ) -> None:
        self.save_dir, self.save_dict, self.validator = Path(save_dir), dict(save_dict), validator
        self.dataset_dir, self.config, self.interval, self.resume = Path(dataset_dir), config, interval, resume
        self.logger = get_logger(type(self).__name__)
        self._digest = ""
        self._saved_at = 0  # iteration of the last checkpoint of this run
        self._last_is_ours = False  # whether this run wrote last.pt, undamaged

    def attach(self, engine: Engine) -> None:
        """Attach to a MONAI trainer whose data loader has a ``ModalityBalancedSampler``."""
        engine.add_event_handler(Events.STARTED, self._started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration_completed)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch_completed)
        engine.add_event_handler(Events.TERMINATE, self._terminated)

    def _started(self, engine: Engine) -> None:
        self._digest = index_digest(self.dataset_dir)
        if idist.get_rank() == 0:
            remove_left_over(self.save_dir)
        found = self._newest() if self.resume else None
        if found is not None:
            self._go_on(engine, *found)
        elif self.resume:
            self.logger.info("No checkpoint in %s yet: training starts from the beginning", self.save_dir)

    def _iteration_completed(self, engine: Engine) -> None:
        ends_epoch = engine.state.iteration % engine.state.epoch_length == 0
        due = engine.state.iteration - self._saved_at >= self.interval
        if ends_epoch or (due and weights_updated(engine)):
            self._save(engine, epoch_done=False)

    def _epoch_completed(self, engine: Engine) -> None:
        if not self.validator.should_terminate:  # else the validation was cut short and is repeated
            self._save(engine, epoch_done=True)

    def _terminated(self, engine: Engine) -> None:
        if engine.state.iteration != self._saved_at:
            self._save(engine, epoch_done=False)

    def _save(self, engine: Engine, *, epoch_done: bool) -> None:
        random_states = [get_random_state(engine.state.device)]
        if idist.get_world_size() > 1:
            parts: list[Any] = [None] * idist.get_world_size()
            dist.all_gather_object(parts, random_states[0])
            random_states = parts
        if idist.get_rank() == 0:
            self._require_finite_weights(engine)
            content = {name: item.state_dict() for name, item in self.save_dict.items()} | {
                "trainer": dict(engine.state_dict()),
                "validator": {key: getattr(self.validator.state, key) for key in _BEST},
                "scaler": None if engine.scaler is None else engine.scaler.state_dict(),
                "random": random_states,
                "epoch_done": epoch_done,
                "dataset": self._digest,
                "config": self.config,
            }
            # The same iteration with its validation replaces the one without.
            keep = self._last_is_ours and engine.state.iteration != self._saved_at
            last, previous = self.save_dir / LAST, self.save_dir / PREVIOUS
            write_checkpoint(last, content, before=(lambda: os.replace(last, previous)) if keep else None)
            if not self._last_is_ours and not self.resume:
                previous.unlink(missing_ok=True)  # of an earlier training in this folder
        self._saved_at, self._last_is_ours = engine.state.iteration, True

    def _require_finite_weights(self, engine: Engine) -> None:
        with torch.no_grad():
            finite = torch.stack([p.isfinite().all() for p in self.save_dict["model"].parameters()]).all()
        if not finite:
            place = f"weights after {batch_names(engine.state.batch)}"
            remedy = "finite ones; start from last.pt with a lower --lr"
            raise InputError(f"iteration {engine.state.iteration}", place, "NaN or infinite values", remedy)

    def _newest(self) -> tuple[Path, dict[str, Any]] | None:
        """Return the newest undamaged checkpoint, or None if there is no file."""
        paths = [path for path in (self.save_dir / LAST, self.save_dir / PREVIOUS) if path.is_file()]
        for path in paths:
            try:
                content = read_checkpoint(path)
                absent = (_KEYS | set(self.save_dict)) - set(content)
                if absent:
                    raise InputError(path, "checkpoint", f"no {', '.join(sorted(absent))}", "a checkpoint to resume")
                return path, content
            except InputError as error:
                self.logger.warning("%s; it is not used", error)
        if paths:
            raise InputError(self.save_dir, "checkpoint", "none that is whole", f"a whole {LAST} or {PREVIOUS}")
        return None

    def _go_on(self, engine: Engine, path: Path, content: dict[str, Any]) -> None:
        saved, length = content["trainer"], engine.state.epoch_length
        if content["dataset"] != self._digest:
            raise InputError(path, "dataset", "another data set", f"a checkpoint trained on {self.dataset_dir}")
        if saved["epoch_length"] != length:
            allowed = f"{length}, as --batch_size and --epoch_length give"
            raise InputError(path, "iterations of an epoch", saved["epoch_length"], allowed)
        try:
            for name, item in self.save_dict.items():
                item.load_state_dict(content[name])
            engine.load_state_dict({**engine.state_dict(), **saved, "max_epochs": engine.state.max_epochs})
        except (ValueError, KeyError, RuntimeError) as error:
            raise InputError(
                path, "checkpoint", f"other settings ({error})"[:200], "those it was trained with"
            ) from error
        if engine.scaler is not None and content["scaler"] is not None:
            engine.scaler.load_state_dict(content["scaler"])
        for key, value in content["validator"].items():
            setattr(self.validator.state, key, value)
        loader, iteration = engine.data_loader, engine.state.iteration
        loader.sampler.set_epoch(iteration // length, start=iteration % length * loader.batch_size)
        if len(content["random"]) == idist.get_world_size():
            set_random_state(content["random"][idist.get_rank()], engine.state.device)
        self._saved_at, self._last_is_ours = iteration, path.name == LAST
        self.logger.info("Resuming from %s: epoch %d, iteration %d", path, engine.state.epoch, iteration)
        if iteration and iteration % length == 0 and not content["epoch_done"]:
            engine.fire_event(Events.EPOCH_COMPLETED)


def weights_updated(engine: Engine) -> bool:
    """Return whether the optimizer stepped in this iteration of a MONAI trainer that may accumulate gradients."""
    place = (engine.state.iteration - 1) % engine.state.epoch_length + 1
    return place % engine.accumulation_steps == 0 or place == engine.state.epoch_length
