"""Segment many images: what is finished is skipped, and a bad image does not stop the others."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from custom.errors import InputError
from custom.files import write_whole
from custom.images.intensity import WINDOWS, Window
from custom.inference.canvas import check_overlap
from custom.inference.cases import Case, fingerprint
from custom.inference.models import Model
from custom.inference.results import CaseResult, is_finished, write_results
from custom.inference.segmenter import BoxSegmenter
from custom.inference.sources import InputImage, read_input
from custom.modalities import canonical_modality

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is done to every image.

    Attributes:
        window: window of CT that is not uint8 yet.
        suv_max: upper end of the range of a PET in SUV; None takes the percentiles.
        overlap: "logit", "smaller" or "last"; see ``BoxSegmenter``.
        separate: write one file for each box instead of one label map.
        follow: follow an object through the slices of a volume; without it every slice is prompted with the box.

    Raises:
        InputError: a value that is not allowed.
    """

    window: Window = WINDOWS["soft_tissue"]
    suv_max: float | None = None
    overlap: str = "logit"
    separate: bool = False
    follow: bool = True

    def __post_init__(self) -> None:
        check_overlap(self.overlap)
        suv_max = self.suv_max
        number = isinstance(suv_max, (int, float)) and not isinstance(suv_max, bool)
        if suv_max is not None and not (number and 0 < suv_max < np.inf):
            raise InputError("arguments", "suv_max", repr(suv_max), "a positive number")
        for name in ("separate", "follow"):
            if not isinstance(getattr(self, name), bool):
                raise InputError("arguments", name, repr(getattr(self, name)), "True, False")


@dataclass(kw_only=True)
class Summary:
    """What a run did: names of the cases written, number of those that were there, and a line for each that failed."""

    written: list[str] = field(default_factory=list)
    skipped: int = 0
    failed: list[str] = field(default_factory=list)


def segment_case(case: Case, model: Model, options: Options, out: Path) -> dict[str, Any]:
    """Segment one image, write its results, and return the content of its JSON file.

    Raises:
        InputError: the image, its boxes or the network cannot be used.
        OSError: the results cannot be written.
    """
    return _finish(_load(case, model, options), model, options, out)


def segment_cases(
    cases: Sequence[Case], model: Model, options: Options, out: Path, *, rank: int = 0, world: int = 1
) -> Summary:
    """Segment those of a share of the cases that have no results yet, or results of other inputs.

    Stopped at any moment, the same call carries on. A failed case is told at once and is tried again by the next run.
    At the end ``report_<rank>.json`` lists what was written and what failed.

    Args:
        cases: all cases; this process takes ``cases[rank::world]``.
        model: the network.
        options: what is done to every image.
        out: folder of the results.
        rank: number of this process.
        world: number of processes.

    Raises:
        InputError: the network cannot be started.
        OSError: results cannot be written (no permission, disk full): then the other cases could not be, either.
    """
    share, summary, told = cases[rank::world], Summary(), _told(model, options)
    todo = [case for case in share if not is_finished(out, case.name, fingerprint(case, told))]
    summary.skipped = len(share) - len(todo)
    for case in tqdm(todo, unit="case", disable=None if rank == 0 else True):
        try:
            loaded = _load(case, model, options)
        except Exception as error:
            _fail(summary, case, error)
            continue
        model.start()  # an error of the network concerns all cases
        try:
            _finish(loaded, model, options, out)
        except OSError:
            raise
        except Exception as error:
            _fail(summary, case, error)
        else:
            summary.written.append(case.name)
    out.mkdir(parents=True, exist_ok=True)
    content = json.dumps(asdict(summary), indent=2, ensure_ascii=False) + "\n"
    write_whole(out / f"report_{rank}.json", lambda file: file.write(content.encode("utf-8", "backslashreplace")))
    return summary


def refuse_overwriting(cases: Sequence[Case], source: str | Path, out: Path) -> None:
    """Raise an InputError where a result would take the place of an image or of the list."""
    places = [Path(place) for place in (source, *(case.path for case in cases))]
    inputs = {place.name for place in places if place.resolve().parent == out.resolve()}
    for case in cases if inputs else ():
        results = {f"{case.name}.json", f"{case.name}.npz", f"{case.name}_overlay.png"}
        taken = [name for name in inputs if name in results or name.startswith(f"{case.name}_mask")]
        if taken:
            raise InputError("arguments", "out", f"{out}, where {min(taken)} is an input", "another folder")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Loaded:
    """A case that was read: its image, its boxes, and what ``CaseResult`` is to say about both."""

    case: Case
    image: InputImage
    boxes: np.ndarray
    told: dict[str, Any]
    fingerprint: str
    read_seconds: float


def _load(case: Case, model: Model, options: Options) -> _Loaded:
    start, told = time.perf_counter(), _told(model, options)
    known = fingerprint(case, told)  # before the file is read: one that changes from here on has to be done again
    modality = None if case.modality is None else canonical_modality(case.modality, case.path)
    image = read_input(case.path, modality=modality, window=options.window, suv_max=options.suv_max)
    given = image.boxes if case.boxes is None else case.boxes
    if given is None:
        raise InputError(case.path, "boxes", "no boxes", "--boxes, a JSON list that gives them, or an npz with boxes")
    boxes = image.checked_boxes(given)
    seconds = time.perf_counter() - start
    return _Loaded(case=case, image=image, boxes=boxes, told=told, fingerprint=known, read_seconds=seconds)


def _finish(loaded: _Loaded, model: Model, options: Options, out: Path) -> dict[str, Any]:
    """Segment what was loaded, and write the results."""
    case, image, boxes = loaded.case, loaded.image, loaded.boxes
    segmenter = BoxSegmenter(model.start(), overlap=options.overlap, keep_masks=options.separate)
    placed = image.boxes_to_array(boxes)
    if image.kind == "picture":
        segmentation = segmenter.segment_picture(image.array, placed, image.modality)
    else:
        segmentation = segmenter.segment_volume(image.array, placed, image.modality, follow=options.follow)
    result = CaseResult(
        image=image,
        boxes=boxes,
        segmentation=segmentation,
        told=loaded.told,
        fingerprint=loaded.fingerprint,
        read_seconds=loaded.read_seconds,
    )
    report = write_results(result, out, case.name)
    warnings = [entry["warning"] for entry in report["boxes"] if "warning" in entry]
    if warnings:
        logger.warning("%s: %d of %d boxes: %s", case.path, len(warnings), len(boxes), warnings[0])
    return report


def _told(model: Model, options: Options) -> dict[str, Any]:
    """Return what the JSON file says about the run; results hold as long as it is the same."""
    return {"model": model.told, "options": asdict(options)}


def _fail(summary: Summary, case: Case, error: Exception) -> None:
    text = str(error) if isinstance(error, InputError) else f"{case.path}: {type(error).__name__} ({error})"
    summary.failed.append(" ".join(text.split()))
    tqdm.write(f"failed: {summary.failed[-1]}", file=sys.stderr)
