"""Precisions that must agree, and images at the limits: always a finite mask of the image's size, at fair cost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from custom.errors import InputError
from custom.images.intensity import WINDOWS, to_uint8
from custom.inference.backend import Backend
from custom.inference.models import choose_model
from custom.inference.segmenter import BoxSegmenter
from data_prep.pipeline import prepare
from data_prep.readers import READERS
from tests.benchmarks.accuracy import measure
from tests.reliability.inputs import middle_box, scene
from tests.reliability.report import PartReport
from tests.reliability.stand_in import StandIn

DATASET, CHECKPOINT = "MCP_MEDSAM_DATASET", "MCP_MEDSAM_CHECKPOINT"
#: Points of DSC by which a precision may be off: arithmetic of the same width, and of a different one.
SAME, OTHER = 0.01, 0.5
PICTURES = ((1, 1), (1, 2), (2, 2), (1, 50), (50, 1), (3, 150), (40, 2000), (2000, 40), (255, 257))
LARGE = ((1024, 1024), (2048, 2048), (4096, 4096), (8192, 8192))
DEPTHS = (1, 2, 10, 100, 1000)
#: Largest factor by which the cost of a pixel or voxel may grow from one size to the largest.
_GROWTH = 3.0


@dataclass(frozen=True)
class Cost:
    """The cost of a segmentation: seconds, and MB of additional peak memory."""

    seconds: float
    megabytes: float


def boxes_at_limits(shape: tuple[int, ...]) -> np.ndarray:
    """Return boxes of a pixel in the corners and the middle, of a row, of a column, at the borders, and of it all."""
    last = np.array(shape[::-1]) - 1
    first, middle = np.zeros_like(last), last // 2
    ends = [(first, last), (first, first), (last, last), (middle, middle), (first, middle), (middle, last)]
    for axis in (0, 1):  # one column, one row
        low, high = first.copy(), last.copy()
        low[axis] = high[axis] = middle[axis]
        ends.append((low, high))
    return np.array([np.concatenate(pair) for pair in ends], float)


def values_at_limits(shape: tuple[int, int]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield images of one slice whose values are constant, saturated, denormal, huge or few, as in files."""
    picture = scene(shape)[None]
    one = np.zeros_like(picture)
    one[0, shape[0] // 2, shape[1] // 2] = 255
    yield "zeros", np.zeros_like(picture)
    yield "saturated", np.full_like(picture, 255)
    yield "one bright pixel", one
    yield "two values", (picture > 100).astype(np.uint8) * 255
    yield "denormal", picture.astype(np.float32) * np.float32(1e-44)
    yield "denormal double", picture * 5e-324
    for dtype in (np.int8, np.int16, np.int32, np.int64, np.float16, np.float32):
        limits = np.finfo(dtype) if np.dtype(dtype).kind == "f" else np.iinfo(dtype)
        yield f"limits of {np.dtype(dtype)}", np.where(picture > 100, limits.max, limits.min).astype(dtype)


def check_segmentation(backend: Backend, image: np.ndarray, boxes: np.ndarray) -> list[str]:
    """Segment an image HxW or DxHxW; return a line for each problem."""
    segmenter = BoxSegmenter(backend, keep_masks=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # NumPy's warning for values that become NaN
            segment = segmenter.segment_picture if image.ndim == 2 else segmenter.segment_volume
            found = segment(image, boxes)
    except Exception as error:
        return [f"{type(error).__name__} ({error})"]
    problems = [] if found.labels.shape == image.shape else [f"mask of size {found.labels.shape}"]
    problems += [] if np.isfinite(found.iou).all() else ["IoU that is not finite"]
    if found.probabilities is not None and not np.isfinite(found.probabilities).all():
        problems.append("probabilities that are not finite")
    if any(mask.shape != image.shape for mask in found.masks):
        problems.append("a box's mask of another size")
    return problems


def check_values(backend: Backend, shape: tuple[int, int]) -> Iterator[tuple[str, list[str]]]:
    """Yield (name, problems) for each of ``values_at_limits``."""
    for name, values in values_at_limits(shape):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", RuntimeWarning)
                seen = to_uint8(values, "MR", WINDOWS["soft_tissue"], name)[0]
        except (InputError, RuntimeWarning) as error:
            yield name, [str(error)]
            continue
        problems = check_segmentation(backend, seen, np.array([middle_box(shape)], float))
        if np.unique(values).size > 1 and np.ptp(seen) != 255:
            problems.append(f"nothing to see: values {seen.min()} to {seen.max()}")
        yield name, problems


def cost_of(backend: Backend, shape: tuple[int, ...]) -> Cost:
    """Segment an image of a given size by two boxes and measure time and memory."""
    image = scene(shape)
    boxes = np.array([middle_box(shape), [*[0] * len(shape), *(n - 1 for n in shape[::-1])]], float)
    segmenter = BoxSegmenter(backend)
    segment = segmenter.segment_picture if image.ndim == 2 else segmenter.segment_volume
    with _Peak() as peak:
        start = time.perf_counter()
        segment(image, boxes)
        seconds = time.perf_counter() - start
    return Cost(seconds, peak.megabytes)


class _Peak:
    """Watches the resident memory of this process."""

    def __enter__(self) -> _Peak:
        self._done = threading.Event()
        self._before = self._most = _resident()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    @property
    def megabytes(self) -> float:
        return (self._most - self._before) / 2**20

    def _watch(self) -> None:
        while not self._done.wait(0.002):
            self._most = max(self._most, _resident())


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def out_of_proportion(costs: dict[tuple[int, ...], Cost], *, above: int) -> list[str]:
    """Return a line if a pixel of the largest image costs more than ``_GROWTH`` times that of a smaller one.

    Args:
        costs: costs by shape.
        above: smallest number of pixels of an image, so that the fixed cost of an image does not matter.
    """
    sizes = {shape: int(np.prod(shape)) for shape in costs if np.prod(shape) >= above}
    if len(sizes) < 2:
        return []
    least, most = min(sizes, key=sizes.get), max(sizes, key=sizes.get)
    found = []
    for what in ("seconds", "megabytes"):
        first, last = (getattr(costs[shape], what) / sizes[shape] for shape in (least, most))
        if last > _GROWTH * first > 0:
            found.append(f"{what}: a pixel of {most} takes {last / first:.1f} times one of {least}")
    return found


def agreement(out: Path, *, every: int) -> tuple[list[dict[str, object]], list[str]]:
    """Export the network in every way and compare DSC on a validation set with PyTorch's; return rows and failures.

    The set comes from the environment variable ``DATASET`` (else the phantoms), the weights from ``CHECKPOINT``
    (else LiteMedSAM's).
    """
    checkpoint = os.environ.get(CHECKPOINT, "lite_medsam")
    dataset = os.environ.get(DATASET)
    if dataset is None:
        dataset = str(out / "phantoms")
        prepare(READERS["demo"](), dataset, progress=False)
    folders = {name: out / name for name in ("f32", "bf16", "int8")}
    for name, folder in folders.items():
        options = {"f32": ["--onnx", "True"], "bf16": ["--precision", "bf16"]}.get(name)
        options = options or ["--precision", "int8", "--calibration", dataset]
        command = [sys.executable, "-m", "custom.export", "--checkpoint", checkpoint, "--out", str(folder), *options]
        subprocess.run(command, check=True)  # in its own process, as for users
    _, found = measure(dataset, checkpoint=checkpoint, models=list(folders.values()), every=every)
    rows, failures = [], []
    for line in found:
        same = line.network.endswith("f32")
        rows.append(
            {"network": line.network, "DSC": line.dsc, "difference": line.difference, "largest logit": line.worst}
        )
        if not abs(line.difference) <= (SAME if same else OTHER):
            failures.append(f"{line.network}: DSC {line.difference:+.3f} points from PyTorch's")
    return rows, failures


def run_part(out: Path, *, scale: float) -> PartReport:
    """Compare the precisions, on every n-th case (n = 1 / scale), and try images and boxes at the limits.

    Sizes whose pixels cost more than the network are tried with a stand-in for it, up to ``scale`` of the largest.
    """
    shutil.rmtree(out, ignore_errors=True)  # of an earlier run
    start = time.perf_counter()
    rows, failures = agreement(out, every=max(1, round(1 / scale)))
    network = choose_model(checkpoint="lite_medsam", backend="torch", clip="none").start()

    def note(what: str, problems: list[str], **more: object) -> None:
        rows.append({"image": what, **more, "found": problems[0] if problems else "as it should be"})
        failures.extend(f"{what}: {line}" for line in problems)

    shapes = [*PICTURES, *((depth, 20, 30) for depth in DEPTHS[:2])]
    for shape in shapes:
        note(f"{shape}, boxes at the limits", check_segmentation(network, scene(shape), boxes_at_limits(shape)))
    for name, problems in check_values(network, (60, 80)):
        note(name, problems)
    for shapes in (LARGE, [(depth, 64, 64) for depth in DEPTHS]):
        most, costs = scale * np.prod(shapes[-1]), {}
        for shape in (shape for shape in shapes if shape == shapes[0] or np.prod(shape) <= most):
            costs[shape] = cost_of(StandIn(), shape)
            reported = {"seconds": costs[shape].seconds, "MB": costs[shape].megabytes}
            note(f"{shape}, stand-in", [], **reported)
        failures += out_of_proportion(costs, above=2**20 if len(shapes[0]) == 2 else 2**15)
    return PartReport("numerics", rows, failures, time.perf_counter() - start)
