"""Measure how fast a prepared set is read: one slice of a volume, and the samples of a training."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np

from custom.bundle_folder import CONFIGS
from custom.data.prepared import load_dataset, read_slice
from custom.errors import InputError

_SIDE, _DEPTHS, _READS = 512, (8, 800), 50
_ROUND = 64  # samples timed together


@dataclass(frozen=True, kw_only=True)
class SpeedReport:
    """The measurements; ``str()`` gives a readable text.

    Attributes:
        slice_ms: slices in the volume -> median ms to open it and read one 512 x 512 slice at random, the file in
            the system's page cache.
        cold_slice_ms: the same for a file that was dropped from the cache; empty if the system cannot do that. Without
            meaning for a file system in memory.
        samples_per_s: samples of the training's pipeline a second on one core; median over rounds of 64 samples.
        samples_per_cpu_s: the same per second of CPU time; if it is much higher, the disk or other
            programs slowed the pipeline down.
        transform_ms: transform of the pipeline -> mean ms a sample.
    """

    slice_ms: dict[int, float]
    cold_slice_ms: dict[int, float]
    samples_per_s: float
    samples_per_cpu_s: float
    transform_ms: dict[str, float]

    def __str__(self) -> str:
        lines = [f"one slice of a memory-mapped volume, ms:{'cached':>17}{'not cached':>12}"]
        for depth, warm in self.slice_ms.items():
            cold = f"{self.cold_slice_ms[depth]:.3f}" if depth in self.cold_slice_ms else "-"
            lines.append(f"  {f'{_SIDE} x {_SIDE} x {depth}':<38}{warm:>17.3f}{cold:>12}")
        rates = f"{self.samples_per_s:.0f} (a second of computing alone: {self.samples_per_cpu_s:.0f})"
        lines.append(f"training samples a second on one core: {rates}; ms a sample:")
        lines += [f"  {name:<38}{ms:>17.3f}" for name, ms in self.transform_ms.items()]
        return "\n".join(lines)


def measure(dataset_dir: str | os.PathLike[str], *, seconds: float = 20.0) -> SpeedReport:
    """Measure random access to one slice, and the samples a second of the training on one core.

    The samples are those of ``bundle/configs/train.json``: its data set, balanced sampler and transforms with crops of
    64 pixels for the content CNN; no network is loaded. They are made in a separate process with one thread, after
    a first round that is not counted.

    Args:
        dataset_dir: folder of the prepared set.
        seconds: how long to make samples.

    Raises:
        InputError: the set cannot be read or has no training case, or ``seconds`` is not positive.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0:
        raise InputError("arguments", "seconds", repr(seconds), "a positive number")
    if not load_dataset(dataset_dir).training:
        raise InputError(dataset_dir, "training", "no case", "at least one")
    cached, dropped = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for depth in _DEPTHS:
            path = _write_volume(Path(folder), depth)
            cached[depth] = _time_slices(path, depth)
            if hasattr(os, "posix_fadvise"):
                dropped[depth] = _time_slices(path, depth, before=_drop_from_cache)
    context = multiprocessing.get_context("spawn")  # torch and MONAI then have the settings of a training only
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        rate, cpu_rate, steps = pool.submit(_time_samples, os.path.abspath(dataset_dir), seconds).result()
    return SpeedReport(
        slice_ms=cached,
        cold_slice_ms=dropped,
        samples_per_s=rate,
        samples_per_cpu_s=cpu_rate,
        transform_ms=steps,
    )


def _write_volume(folder: Path, depth: int) -> Path:
    path = folder / f"{depth}.npy"
    volume = np.lib.format.open_memmap(path, "w+", np.uint8, (depth, _SIDE, _SIDE))
    plane = np.random.default_rng(0).integers(0, 256, (_SIDE, _SIDE), np.uint8)
    for z in range(depth):
        volume[z] = plane + np.uint8(z % 256)
    volume.flush()
    return path


def _drop_from_cache(path: Path) -> None:
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _time_slices(path: Path, depth: int, before: Callable[[Path], None] | None = None) -> float:
    times = []
    for z in np.random.default_rng(0).integers(depth, size=_READS):
        if before is not None:
            before(path)
        start = time.perf_counter()
        read_slice(path, int(z))
        times.append(1e3 * (time.perf_counter() - start))
    return median(times)


def _time_samples(dataset_dir: str, seconds: float) -> tuple[float, float, dict[str, float]]:
    """Return samples a second, samples a second of CPU time, and ms of every step."""
    import torch
    from monai.bundle import ConfigParser
    from monai.transforms import Compose, apply_transform

    torch.set_num_threads(1)
    parser = ConfigParser()
    parser.read_config(CONFIGS / "train.json")
    parser.update({"dataset_dir": dataset_dir, "crops": {"crop": 64}})
    parser.get_parsed_content("initialize")
    dataset, sampler = parser.get_parsed_content("train#dataset"), parser.get_parsed_content("train#sampler")
    whole = dataset.transform
    indices = _endless(sampler)
    for index in islice(indices, _ROUND):
        dataset[index]
    clocks, spent = (time.perf_counter, time.process_time), np.zeros(1 + len(whole.transforms))
    rounds: list[list[float]] = []
    end = time.perf_counter() + seconds
    while not rounds or time.perf_counter() < end:
        start = [clock() for clock in clocks]
        for index in islice(indices, _ROUND):
            dataset[index]
        rounds.append([_ROUND / (clock() - before) for clock, before in zip(clocks, start, strict=True)])
        dataset.transform = Compose()  # the steps are timed one by one
        for index in islice(indices, _ROUND):
            moments = [time.perf_counter()]
            item = dataset[index]
            moments.append(time.perf_counter())
            for transform in whole.transforms:
                item = apply_transform(transform, item)
                moments.append(time.perf_counter())
            spent += np.diff(moments)
        dataset.transform = whole
    names = ["find the mask", *(type(transform).__name__ for transform in whole.transforms)]
    means = 1e3 * spent / (len(rounds) * _ROUND)
    ms = {f"{n}. {name}": float(mean) for n, (name, mean) in enumerate(zip(names, means, strict=True), start=1)}
    rate, cpu_rate = (median(rates) for rates in zip(*rounds, strict=True))
    return rate, cpu_rate, ms


def _endless(sampler: object) -> Iterator[int]:
    while True:
        yield from sampler
