"""The same answer every time: repeated, in other batches, in another order, by other numbers of processes."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from custom.inference.backend import Backend, Decoded
from custom.inference.batch import SegmentOptions, segment_cases
from custom.inference.cases import list_cases
from custom.inference.models import Model, choose_model
from custom.inference.predictor import Predictor
from custom.inference.segmenter import BoxSegmenter, Segmentation
from custom.prompts import Prompts
from tests.reliability.commands import COMMANDS, run_evaluation, run_training
from tests.reliability.faults import Processes
from tests.reliability.inputs import scene, write_images
from tests.reliability.report import PartReport

#: How far a logit may be off if a batch is summed in another order; the largest logits are some tens.
LOGIT_TOLERANCE = 1e-3
_BATCHES = (1, 3, 8)


class Recorder:
    """A backend that keeps every box's logits, before any processing.

    Attributes:
        logits: 256x256, by box in the frame.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend, self.logits = backend, {}

    def __getattr__(self, name: str) -> object:
        return getattr(self.backend, name)

    def decode(self, embedding: object, prompts: Prompts, answer: Decoded | None = None) -> Decoded:
        """Decode as the backend does."""
        decoded = self.backend.decode(embedding, prompts, answer)
        boxes = map(tuple, prompts.boxes.tolist())
        self.logits |= dict(zip(boxes, decoded.mask_logits, strict=True))
        return decoded


def largest_difference(one: Recorder, other: Recorder) -> float:
    """Return the largest difference of a logit; infinite if the boxes are not the same or a value is NaN."""
    if one.logits.keys() != other.logits.keys():
        return float("inf")
    worst = max(float(np.abs(one.logits[box] - other.logits[box]).max()) for box in one.logits)
    return worst if np.isfinite(worst) else float("inf")


def masks_that_differ(one: Recorder, other: Recorder, tolerance: float) -> int:
    """Return the number of pixels on two sides of the threshold although one of the logits is clearly away from it."""
    differing = 0
    for box in one.logits.keys() & other.logits.keys():
        a, b = one.logits[box], other.logits[box]
        differing += int((((a > 0) != (b > 0)) & (np.maximum(np.abs(a), np.abs(b)) > tolerance)).sum())
    return differing


def compare_batches(backend: Backend, picture: np.ndarray, boxes: np.ndarray) -> Iterable[tuple[int, float, int]]:
    """Segment a picture with other numbers of boxes at once; yield (number, largest difference, pixels that differ)."""
    recorders = {}
    for count in _BATCHES:
        recorders[count] = Recorder(backend)
        BoxSegmenter(recorders[count], boxes_at_once=count).segment_picture(picture, boxes, "US")
    reference = recorders[_BATCHES[0]]
    for count in _BATCHES[1:]:
        found = recorders[count]
        yield count, largest_difference(reference, found), masks_that_differ(reference, found, LOGIT_TOLERANCE)


def order_matters(segment: Callable[[np.ndarray], Segmentation], boxes: np.ndarray, seed: int = 0) -> list[str]:
    """Segment boxes in another order; return a line for each box whose mask, IoU or modality is not identical."""
    order = np.random.default_rng(seed).permutation(len(boxes))
    first, second = segment(boxes), segment(boxes[order])
    found = [] if first.modality == second.modality else [f"modality {first.modality}, {second.modality}"]
    for place, k in enumerate(order):
        if not np.array_equal(first.masks[k], second.masks[place]) or first.iou[k] != second.iou[place]:
            found.append(f"box {k} as number {place}")
    return found


def folders_that_differ(model: Model, listed: Path, folder: Path, options: SegmentOptions) -> list[str]:
    """Segment the images of a list twice, backwards, and in two shares; return a line for each file that differs."""
    predictor = Predictor(network=model, embeddings=0)
    entries = json.loads(listed.read_text())
    backwards = listed.with_name("backwards.json")
    backwards.write_text(json.dumps(entries[::-1]))
    runs: dict[str, list[tuple[Path, int, int]]] = {
        "once": [(listed, 0, 1)],
        "again": [(listed, 0, 1)],
        "backwards": [(backwards, 0, 1)],
        "in two shares": [(listed, 0, 2), (listed, 1, 2)],
    }
    for name, shares in runs.items():
        for source, rank, world in shares:
            segment_cases(list_cases(source)[0], predictor, options, folder / name, rank=rank, world=world)
    contents = {name: COMMANDS["segment"].contents(folder / name) for name in runs}
    wanted = contents.pop("once")
    return [
        f"{name}: {file}"
        for name, found in contents.items()
        for file in sorted(wanted.keys() | found.keys())
        if wanted.get(file) != found.get(file)
    ]


def runs_that_differ(name: str, runs: dict[str, Callable[[Path, Path], None]], folder: Path) -> list[str]:
    """Run variants of a command, each in its own process; return a line for each result that differs."""
    command, processes, found = COMMANDS[name], Processes(), {}
    command.fill(folder / "in")
    for title, run in runs.items():
        out = folder / title
        ended = processes.run(replace(command, run=run), folder / "in", out)
        if ended.code:
            return [f"{title} ended with code {ended.code}: {ended.reported[-300:]}"]
        found[title] = command.contents(out)
    wanted, *others = found.values()
    titles = list(found)[1:]
    return [
        f"{title}: {file}"
        for title, other in zip(titles, others, strict=True)
        for file in sorted(wanted.keys() | other.keys())
        if wanted.get(file) != other.get(file)
    ]


def random_boxes(shape: Sequence[int], count: int, seed: int = 0) -> np.ndarray:
    """Return boxes Nx4 (in a volume Nx6) inside an image of the shape (H, W) or (D, H, W)."""
    rng, size = np.random.default_rng(seed), np.array(shape[::-1])
    low = rng.integers(0, np.maximum(size // 2, 1), (count, len(size)))
    high = np.minimum(low + 1 + rng.integers(0, np.maximum(size // 2, 1), low.shape), size - 1)
    return np.concatenate([low, high], axis=1).astype(float)


def run_part(out: Path, *, scale: float) -> PartReport:
    """Run every comparison with the real network, LiteMedSAM's weights; scale multiplies the number of boxes."""
    shutil.rmtree(out, ignore_errors=True)  # of an earlier run
    start, rows, failures = time.perf_counter(), [], []
    model, count = choose_model(checkpoint="lite_medsam", backend="torch", clip="none"), max(3, round(12 * scale))
    picture, volume = scene((200, 300)), scene((6, 60, 90))

    def note(check: str, wrong: Sequence[str], tolerance: str = "none", found: str = "equal") -> None:
        rows.append({"what is varied": check, "tolerance": tolerance, "found": found if not wrong else wrong[0]})
        failures.extend(f"{check}: {line}" for line in wrong)

    boxes = random_boxes(picture.shape, count)
    for size, difference, pixels in compare_batches(model.start(), picture, boxes):
        wrong = [f"logits differ by {difference:.2g}"] if difference > LOGIT_TOLERANCE else []
        wrong += [f"{pixels} pixels differ"] if pixels else []
        allowed = f"{LOGIT_TOLERANCE} of a logit; masks but where all logits are below it"
        note(f"boxes at once: 1, {size}", wrong, allowed, f"{difference:.2g}")
    segmenter = BoxSegmenter(model.start(), keep_masks=True)
    note("order of the boxes, picture", order_matters(partial(segmenter.segment_picture, picture), boxes))
    deep = random_boxes(volume.shape, max(2, count // 4))
    note("order of the boxes, volume", order_matters(partial(segmenter.segment_volume, volume), deep))
    listed = write_images(out / "images", max(3, round(5 * scale)))
    note("run, order of the files, shares", folders_that_differ(model, listed, out / "folders", SegmentOptions()))
    evaluations = {f"{n} workers": partial(run_evaluation, num_workers=n) for n in (0, 1, 2)}
    note("workers of an evaluation", runs_that_differ("evaluate", evaluations, out / "evaluate"))
    trainings = {title: partial(run_training, num_workers=n) for title, n in (("once", 0), ("again", 0), ("loaded", 2))}
    note("run and workers of a training", runs_that_differ("train", trainings, out / "train"))
    return PartReport("determinism", rows, failures, time.perf_counter() - start)
