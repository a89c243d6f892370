"""Segment many images: finished images are skipped, and a bad image does not stop the others."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from custom.atomic_write import write_whole
from custom.errors import InputError
from custom.images.formats import check_mask_format, mask_format
from custom.images.image import Image
from custom.images.intensity import WINDOWS, Window
from custom.images.reading import read_image
from custom.inference.box_input import Boxes
from custom.inference.cases import Case, case_fingerprint
from custom.inference.click_input import Clicks
from custom.inference.label_map import check_overlap
from custom.inference.predictor import Predictor
from custom.inference.prompt_check import check_names, check_prompts
from custom.inference.result_files import is_finished, write_result
from custom.modalities import canonical_modality

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SegmentOptions:
    """How every image is segmented.

    Attributes:
        window: for CT that is not uint8.
        suv_max: upper end of the range of a PET in SUV; None uses the percentiles.
        frame: number of the volume in a 4D file.
        series: which DICOM series of a folder.
        overlap: "logit", "smaller" or "last"; see ``Predictor.predict``.
        separate: write one file per box instead of one label map.
        follow: follow an object through the slices of a volume; False prompts every slice with the box.
        format: of the masks; None for the image's own.

    Raises:
        InputError: a value that is not allowed.
    """

    window: Window = WINDOWS["soft_tissue"]
    suv_max: float | None = None
    frame: int | None = None
    series: str | None = None
    overlap: str = "logit"
    separate: bool = False
    follow: bool = True
    format: str | None = None

    def __post_init__(self) -> None:
        check_overlap(self.overlap)
        check_mask_format(self.format)
        suv_max, frame = self.suv_max, self.frame
        number = isinstance(suv_max, (int, float)) and not isinstance(suv_max, bool)
        if suv_max is not None and not (number and 0 < suv_max < np.inf):
            raise InputError("arguments", "suv_max", repr(suv_max), "a positive number")
        if frame is not None and (isinstance(frame, bool) or not isinstance(frame, int) or frame < 0):
            raise InputError("arguments", "frame", repr(frame), "a whole number from 0 up")
        for name in ("separate", "follow"):
            if not isinstance(getattr(self, name), bool):
                raise InputError("arguments", name, repr(getattr(self, name)), "True, False")


@dataclass(kw_only=True)
class Summary:
    """What a run did: names of the cases written, number of cases skipped, and a line for each that failed."""

    written: list[str] = field(default_factory=list)
    skipped: int = 0
    failed: list[str] = field(default_factory=list)


def segment_case(case: Case, predictor: Predictor, options: SegmentOptions, out: Path) -> dict[str, Any]:
    """Segment one image, write its results, and return the content of its JSON file.

    Raises:
        InputError: the image, its prompts or the network cannot be used.
        OSError: the results cannot be written.
    """
    return _load(case, options)(predictor, out)


def segment_cases(
    cases: Sequence[Case], predictor: Predictor, options: SegmentOptions, out: Path, *, rank: int = 0, world: int = 1
) -> Summary:
    """Segment this process's share of the cases, without those whose results are still valid.

    After an interruption, the same call carries on. A failed case is reported at once and is tried again by the next
    run. At the end ``report_<rank>.json`` lists what was written and what failed.

    Args:
        cases: all cases; this process takes ``cases[rank::world]``.
        predictor: the network.
        options: how every image is segmented.
        out: folder of the results.
        rank: number of this process.
        world: number of processes.

    Raises:
        InputError: the network cannot be started.
        OSError: results cannot be written (no permission, disk full): the other cases could not be written, either.
    """
    share, summary = cases[rank::world], Summary()
    states = {case.name: case_fingerprint(case, asdict(options)) for case in share}
    todo = [case for case in share if not is_finished(out, case.name, _mark(states[case.name], predictor))]
    summary.skipped = len(share) - len(todo)
    for case in tqdm(todo, unit="case", disable=None if rank == 0 else True):
        try:
            segment = _load(case, options)
        except Exception as error:
            _fail(summary, case, error)
            continue
        predictor.network.start()  # an error of the network concerns all cases
        try:
            segment(predictor, out)
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


def check_out(out: Path, cases: Sequence[Case], source: str | Path) -> None:
    """Check the folder of the results before any work: it is writable, and no result replaces an input.

    Raises:
        InputError: it is a file, cannot be written, or an image or the list has the name of a result.
    """
    missing = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise InputError("arguments", "out", f"{out} ({error.strerror})", "a folder that can be written") from error
    finally:
        for folder in missing:
            if folder.is_dir():
                folder.rmdir()
    files = {source, *(file for case in cases for file in (case.path, *case.prompt_files))}
    places = [Path(place) for place in files]
    inputs = {place.name for place in places if place.resolve().parent == out.resolve()}
    for case in cases if inputs else ():
        results = {f"{case.name}.json", f"{case.name}.npz", f"{case.name}_overlay.png"}
        taken = [name for name in inputs if name in results or name.startswith(f"{case.name}_mask")]
        if taken:
            raise InputError("arguments", "out", f"{out}, where {min(taken)} is an input", "another folder")


def _load(case: Case, options: SegmentOptions) -> Callable[[Predictor, Path], dict[str, Any]]:
    """Read and check a case; return the function that segments it and writes the results."""
    start = time.perf_counter()
    # Before the file is read: one that changes from here on is done again.
    state = case_fingerprint(case, asdict(options))
    image = read_image(
        case.path,
        modality=None if case.modality is None else canonical_modality(case.modality, case.path),
        window=options.window,
        suv_max=options.suv_max,
        frame=options.frame,
        series=options.series,
    )
    own = image.boxes if case.clicks is None else None
    boxes = Boxes(values=own, slices=None, names=None) if case.boxes is None else case.boxes.resolve(image)
    if boxes.values is None and case.clicks is None:
        allowed = "--boxes or --points, a list with boxes or points, or an npz with boxes"
        raise InputError(case.path, "boxes", "no boxes", allowed)
    clicks = Clicks(None, None, None, None)
    if case.clicks is not None:
        clicks = case.clicks.resolve(image, in_slices=boxes.slices is not None)
    checked = check_prompts(image, boxes.values, boxes.slices, clicks.points, clicks.point_labels, clicks.masks)
    names = check_names(case.names or boxes.names or clicks.names, len(checked.boxes), case.path)
    module, reason = mask_format(image, options.format)
    warnings = []
    if reason is not None:
        warnings.append(f"the mask is written as {module.MASK}: {reason}")
    if image.modality is None and "warning_modality" in image.notes:
        warnings.append(image.notes["warning_modality"])
    warnings += image.notes.get("unreadable", [])
    for warning in warnings:  # reported before the network runs
        logger.warning("%s: %s", case.path, warning)
    read_seconds = time.perf_counter() - start

    def segment(predictor: Predictor, out: Path) -> dict[str, Any]:
        predictor.set_image(image)
        with _slice_bar(image) as progress:
            result = predictor.predict(
                boxes.values,
                slice=boxes.slices,
                points=clicks.points,
                point_labels=clicks.point_labels,
                masks=clicks.masks,
                names=names,
                overlap=options.overlap,
                follow=options.follow,
                progress=progress,
            )
        result = replace(result, seconds={**result.seconds, "read": read_seconds})
        more = {"options": asdict(options), "fingerprint": _mark(state, predictor), "warnings": warnings}
        report = write_result(result, out, case.name, module, separate=options.separate, more=more)
        for entry in report["boxes"]:
            if "warning" in entry:
                logger.warning("%s: %s: %s", case.path, entry["name"], entry["warning"])
        return report

    return segment


def _mark(state: str, predictor: Predictor) -> str:
    """Return 16 hexadecimal digits that identify a case, the options and the network."""
    facts = json.dumps(predictor.network.facts, sort_keys=True, default=str)
    return hashlib.sha256(f"{state} {facts}".encode()).hexdigest()[:16]


@contextmanager
def _slice_bar(image: Image) -> Iterator[Callable[[int, int], None] | None]:
    """Show how many slices of a volume are done, and the time left."""
    if image.kind != "volume":
        yield None
        return
    quiet = not sys.stderr.isatty()  # then a line from time to time, so that a log stays short
    with tqdm(desc=Path(image.path).name, unit="slice", leave=False, mininterval=10.0 if quiet else 0.2) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress


def _fail(summary: Summary, case: Case, error: Exception) -> None:
    text = str(error) if isinstance(error, InputError) else f"{case.path}: {type(error).__name__} ({error})"
    summary.failed.append(" ".join(text.split()))
    tqdm.write(f"failed: {summary.failed[-1]}", file=sys.stderr)
