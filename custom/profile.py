"""Measure where training time goes: samples a second of the data, of the step and of both, and each part of the step.

python -m custom.profile --dataset_dir D [--steps 10] [--plain True] [--batch_size 4, or any other key of train.json]
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import wraps
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser
from monai.engines.utils import IterationEvents

from custom import command_line
from custom.bundle_folder import CONFIGS
from custom.data.prepared import load_dataset
from custom.errors import InputError

# Turns off what the configuration does for speed: float32, eager, no memory settings.
PLAIN = {
    "amp": False,
    "bfloat16": False,
    "compile": False,
    "network": "$@network_def.to(@device)",
    "optimizer#fused": False,
    "initialize": [],
}
_DATA_ALONE = 30  # more batches, since loading is fast


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The measurements; ``str()`` gives a readable text.

    Attributes:
        data: samples a second that the data loader delivers when nothing else runs.
        step: samples a second of training on the same batch again and again.
        both: samples a second of the whole training.
        parts: part of the step -> mean ms; on a GPU each part waits for the one before.
        memory: peak GB, of the GPU if there is one, else of the process.
    """

    data: float
    step: float
    both: float
    parts: dict[str, float]
    memory: float

    def __str__(self) -> str:
        rates = (("data alone", self.data), ("step alone", self.step), ("both", self.both))
        lines = [f"{name:<24}{rate:>10.2f} samples/s" for name, rate in rates]
        whole = sum(self.parts.values())
        lines += [f"  {name:<22}{ms:>10.1f} ms{ms / whole:>8.1%}" for name, ms in self.parts.items()]
        return "\n".join([*lines, f"{'peak memory':<24}{self.memory:>10.2f} GB"])


def profile(
    dataset_dir: str, *, steps: int = 10, warm_up: int = 2, plain: bool = False, **overrides: Any
) -> dict[str, Profile]:
    """Measure the training of ``configs/train.json``; nothing is saved.

    Args:
        dataset_dir: a prepared set with training cases.
        steps: steps that are counted in each measurement.
        warm_up: steps before them that are not counted.
        plain: also measure a float32 eager training of the same network, with the settings in ``PLAIN``.
        overrides: keys of the config, for instance --batch_size 4 --freeze_image_encoder True --clip none.

    Returns:
        "as configured" and, with ``plain``, "plain", each measured in its own process.

    Raises:
        InputError: an unknown key, a data set that cannot be read, or a number of steps that is out of range.
    """
    for name, value, least in (("steps", steps, 1), ("warm_up", warm_up, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError("arguments", name, repr(value), f"a whole number from {least}")
    keys = json.loads((CONFIGS / "train.json").read_text(encoding="utf-8"))
    command_line.check_keys(overrides, {"steps", "warm_up", "plain", *keys})
    if not load_dataset(str(dataset_dir)).training:
        raise InputError(dataset_dir, "training", "no case", "at least one")
    settings = {"as configured": {}} | ({"plain": PLAIN} if plain else {})
    found = {}
    for name, changes in settings.items():
        keys = {**overrides, **changes, "dataset_dir": str(Path(str(dataset_dir)).absolute())}
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            found[name] = pool.submit(_measure, keys, steps, warm_up).result()
    return found


class Feed:
    """A data loader of ``length`` batches whose source can be changed while the trainer stays."""

    def __init__(self, length: int) -> None:
        self.length, self.source = length, ()

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Any]:
        return islice(iter(self.source), self.length)


class _Watch:
    """Records when work was finished; on a GPU, finished by the device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def moments(self, trainer: Engine) -> list[float]:
        """Return a list to which every iteration of the trainer adds the time of its end."""
        moments: list[float] = []
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: moments.append(self.now()))
        return moments

    def parts(self, trainer: Engine, network: torch.nn.Module) -> dict[str, list[float]]:
        """Return a dict to which every iteration adds the seconds of each part, in the order in which they end."""
        parts: dict[str, list[float]] = defaultdict(list)
        last = [0.0]

        def ends(part: str | None) -> Callable[..., None]:
            def handler(*_: object) -> None:
                moment = self.now()
                if part is not None:
                    parts[part].append(moment - last[0])
                last[0] = moment

            return handler

        trainer.add_event_handler(Events.ITERATION_STARTED, ends(None))
        network.register_forward_pre_hook(ends("batch to device, CLIP"))
        for name in ("image_encoder", "prompt_encoder", "mask_decoder"):
            getattr(network, name).register_forward_hook(ends(name.replace("_", " ")))
        trainer.add_event_handler(IterationEvents.FORWARD_COMPLETED, ends("rest of forward"))
        trainer.add_event_handler(IterationEvents.LOSS_COMPLETED, ends("loss"))
        trainer.add_event_handler(IterationEvents.BACKWARD_COMPLETED, ends("backward"))
        trainer.add_event_handler(IterationEvents.MODEL_COMPLETED, ends("optimizer"))
        return parts


def _parse(overrides: Mapping[str, Any], length: int) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(CONFIGS / "train.json")
    parser.update({"bundle_root": str(CONFIGS.parent), "silent": True, "epochs": 1, **overrides})
    parser.update({"epoch_length": (length + _DATA_ALONE) * parser["batch_size"], "train#handlers": []})
    parser.update({"feed": {"_target_": f"{Feed.__module__}.Feed", "length": length}})
    parser.update({"train#trainer#train_data_loader": "@feed"})
    parser.get_parsed_content("initialize")
    return parser


def _measure(overrides: Mapping[str, Any], steps: int, warm_up: int) -> Profile:
    with tempfile.TemporaryDirectory() as folder:
        parser = _parse({**overrides, "ckpt_dir": folder, "output_dir": folder}, steps + warm_up)
        loader, feed, trainer = (
            parser.get_parsed_content(name) for name in ("train#dataloader", "feed", "train#trainer")
        )
        device, batch_size = trainer.state.device, parser["batch_size"]
        watch = _Watch(device)
        batches = iter(loader)
        in_advance = loader.num_workers * (loader.prefetch_factor or 0)
        *_, batch = islice(batches, 1 + in_advance)  # batches prepared while waiting for the first are not counted
        start = watch.now()
        data = sum(1 for _ in batches) * batch_size / (watch.now() - start)
        rates = []
        for source in ([batch] * len(feed), loader):
            feed.source = source
            moments = watch.moments(trainer)
            trainer.run()
            rates.append(steps * batch_size / (moments[-1] - moments[-1 - steps]))
        feed.source = [batch] * len(feed)
        parts = watch.parts(trainer, parser.get_parsed_content("network"))
        trainer.run()
    if device.type == "cuda":
        used = torch.cuda.max_memory_allocated(device)
    else:
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    means = {name: 1e3 * sum(times[warm_up:]) / steps for name, times in parts.items()}
    return Profile(data=data, step=rates[0], both=rates[1], parts=means, memory=used / 1e9)


@wraps(profile)
def _show(*arguments: Any, **options: Any) -> None:
    for name, result in profile(*arguments, **options).items():
        print(f"{name}\n{result}\n")


def main() -> None:
    """Run the command line."""
    command_line.run(_show, name="python -m custom.profile")


if __name__ == "__main__":
    main()
