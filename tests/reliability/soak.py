"""Thousands of requests in one process: does it keep memory, open files or threads?"""

from __future__ import annotations

import gc
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image
from scipy.stats import theilslopes

from custom.errors import InputError
from custom.inference.batch import SegmentOptions, segment_case
from custom.inference.box_input import BoxInput
from custom.inference.cases import Case
from custom.inference.models import Model, choose_model
from custom.inference.predictor import Predictor
from custom.label_app.conf import Conf
from custom.label_app.service import SegmentationService
from tests.reliability.inputs import middle_box, scene, write_volume
from tests.reliability.report import PartReport
from tests.reliability.stand_in import stand_in_model

#: Largest growth of memory per request, KB.
SLOPE_LIMIT = 1.0
_SIZES = ((48, 64), (200, 320), (512, 512), (33, 700), (1024, 768))
_VOLUMES = ((4, 40, 60), (9, 64, 64))
_BAD = 7  # every 7th request is bad
_DEEP = 10  # every 10th request is a volume
_WARM_UP = 0.2  # part of the requests that is not counted: caches and pools fill

Answer = Callable[[Path, list, int], object]


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The growth of a process: KB per request, MB in total, and its open files and threads before and after.

    KB per request is the median slope between any two requests (Theil and Sen). It rises if every request, or every
    n-th request, leaves memory behind; a single block that the heap never returns to the system does not raise it.
    """

    requests: int
    refused: int
    slope: float
    grown: float
    megabytes: float
    files: tuple[int, int]
    threads: tuple[int, int]
    seconds: float

    def problems(self) -> Iterator[str]:
        """Yield a line for each thing that grew."""
        if self.slope > SLOPE_LIMIT:
            yield f"{self.slope:.2f} KB a request"
        for name, (before, after) in (("open files", self.files), ("threads", self.threads)):
            if after > before:
                yield f"{after} {name} instead of {before}"


def write_requests(folder: Path) -> tuple[list[tuple[Path, list, int]], list[tuple[Path, list, int]]]:
    """Write pictures, volumes and files that cannot be read; return good and bad requests (file, boxes, dimension)."""
    folder.mkdir(parents=True)
    good, bad = [], []
    for n, shape in enumerate(_SIZES):
        path = folder / f"{n}.png"
        Image.fromarray(scene(shape, n)).save(path)
        good.append((path, [middle_box(shape), [0, 0, shape[1] - 1, shape[0] - 1], [3, 3, 4, 4]], 2))
    for n, shape in enumerate(_VOLUMES):
        path = write_volume(folder / f"{n}.nii.gz", scene(shape, n))
        good.append((path, [middle_box(shape)], 3))
    picture = good[0][0]
    (folder / "cut.png").write_bytes(picture.read_bytes()[:200])
    (folder / "text.nii.gz").write_bytes(b"no volume")
    box = [[1, 1, 9, 9]]
    bad += [(folder / "cut.png", box, 2), (folder / "text.nii.gz", box, 3), (folder / "none.png", box, 2)]
    bad += [(picture, [[9, 9, 1, 1]], 2), (picture, [[0, 0, 9999, 9]], 2), (picture, [], 2), (picture, [["a"]], 2)]
    return good, bad


def soak(answer: Answer, requests: int, folder: Path, *, bad_errors: tuple[type[Exception], ...]) -> Kept:
    """Call ``answer`` a number of times, with mixed images and some bad requests, and watch the process."""
    good, bad = write_requests(folder)
    pictures = [request for request in good if request[2] == 2]
    volumes = [request for request in good if request[2] == 3]
    start, refused, memory = time.perf_counter(), 0, []
    warm, before = int(requests * _WARM_UP), (0, 0)
    for n in range(requests):
        if n == warm:
            gc.collect()
            before = _handles()
        kind = bad if n % _BAD == _BAD - 1 else volumes if n % _DEEP == 0 else pictures
        try:
            answer(*kind[n // 3 % len(kind)])
        except bad_errors:
            refused += 1
        if n >= warm:
            memory.append((n, _held()))
    gc.collect()
    after = _handles()
    numbers, sizes = np.array(memory).T
    return Kept(
        requests=requests,
        refused=refused,
        slope=_median_slope(numbers, sizes),
        grown=float((sizes[-1] - sizes[0]) / 1024),
        megabytes=float(sizes[-1] / 1024),
        files=(before[0], after[0]),
        threads=(before[1], after[1]),
        seconds=time.perf_counter() - start,
    )


def _median_slope(numbers: np.ndarray, sizes: np.ndarray) -> float:
    """Return the Theil-Sen slope of sizes over numbers, from at most a thousand of them evenly spread."""
    chosen = np.unique(np.linspace(0, len(numbers) - 1, 1000).round().astype(int))
    return float(theilslopes(sizes[chosen], numbers[chosen]).slope)


def _held() -> int:
    """Return the private memory of this process, swapped out or not, in KB.

    Without the pages of files such as libraries: the system drops and reloads them freely. Files that stay mapped are
    counted by ``_handles``.
    """
    reported = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return sum(int(reported[key].split()[0]) for key in ("RssAnon", "RssShmem", "VmSwap"))


def _handles() -> tuple[int, int]:
    """Return the numbers of files, open or mapped into memory, and of threads."""
    mapped = sum("/" in line for line in Path("/proc/self/maps").read_text().splitlines())
    return len(os.listdir("/proc/self/fd")) + mapped, threading.active_count()


def as_command_line(predictor: Predictor, out: Path, path: Path, boxes: list, _: int) -> object:
    """Answer like ``custom.segment``: from file to files."""
    case = Case(name="a", path=str(path), boxes=BoxInput.parse(boxes), modality="US")
    return segment_case(case, predictor, SegmentOptions(), out)


def as_server(service: SegmentationService, path: Path, boxes: list, dimension: int) -> object:
    """Answer like the app for MONAI Label, with its caches."""
    return service.segment(path, {"boxes": boxes, "modality": "US"}, dimension=dimension)


def ways(model: Model, out: Path, *, embeddings: int = 8) -> dict[str, Answer]:
    """Return the ways to answer a request; the server's caches are small, so that they fill in the warm-up."""
    weights = SimpleNamespace(current=lambda: model)
    service = SegmentationService(weights, Conf(embeddings=embeddings, image_mb=1))
    predictor = Predictor(network=model, embeddings=0)
    return {"command line": partial(as_command_line, predictor, out), "server": partial(as_server, service)}


def run_part(out: Path, *, scale: float) -> PartReport:
    """5,000 requests each way with a stand-in for the network, whose cost does not matter here, 100 with LiteMedSAM.

    The numbers are multiplied by the scale.
    """
    shutil.rmtree(out, ignore_errors=True)  # of an earlier run
    start, rows, failures = time.perf_counter(), [], []
    lite = choose_model(checkpoint="lite_medsam", backend="torch", clip="none")
    networks = {"stand-in": (stand_in_model(), 5000), "LiteMedSAM": (lite, 100)}
    for network, (model, requests) in networks.items():
        for way, answer in ways(model, out / "results").items():
            count, folder = max(20, round(requests * scale)), out / f"{network} {way}"
            kept = soak(answer, count, folder, bad_errors=(InputError, FileNotFoundError))
            rows.append(
                {
                    "network": network,
                    "way": way,
                    "requests": count,
                    "refused": kept.refused,
                    "KB a request": kept.slope,
                    "MB grown": kept.grown,
                    "MB at the end": kept.megabytes,
                    "open files before, after": "{}, {}".format(*kept.files),
                    "threads before, after": "{}, {}".format(*kept.threads),
                    "seconds": kept.seconds,
                }
            )
            failures += [f"{network}, {way}: {line}" for line in kept.problems()]
    return PartReport("soak", rows, failures, time.perf_counter() - start)
