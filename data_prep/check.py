"""Check a prepared set end to end: the index against every array."""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from tqdm import tqdm

from custom.data.prepared import INDEX_NAME, CaseRecord, load_dataset, open_array
from custom.errors import InputError
from custom.json_files import read_json
from custom.modalities import MODALITIES
from data_prep.masks import slice_index
from data_prep.splits import SplitRule, find_leaks
from data_prep.writer import ARRAYS, image_digest

_PARTS = ("training", "validation")
_VOXELS_A_WORKER = 10**9  # these take some seconds, as long as starting a process


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """The result of a check.

    Attributes:
        problems: one line each; empty if the set can be used for training.
        warnings: one line for each thing that is allowed but may be a mistake.
        training: the cases for training; empty if the index cannot be read.
        validation: the cases for validation.
    """

    problems: list[str]
    warnings: list[str]
    training: list[CaseRecord]
    validation: list[CaseRecord]

    def table(self) -> str:
        """Return cases, slices, listed masks, median size and known spacings by modality as text."""
        head = ("modality", "train", "val", "2D", "3D", "slices", "masks", "median size", "with spacing")
        cases = self.training + self.validation
        rows = [head, *(self._row(m) for m in MODALITIES if any(c.modality == m for c in cases)), self._row(None)]
        widths = [max(len(row[k]) for row in rows) for k in range(len(head))]
        lines = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows)
        return "\n".join("  ".join(line) for line in lines)

    def _row(self, modality: str | None) -> tuple[str, ...]:
        parts = [[c for c in part if modality in (None, c.modality)] for part in (self.training, self.validation)]
        cases = parts[0] + parts[1]
        counts = [
            *map(len, parts),
            *(sum(c.dimension == d for c in cases) for d in (2, 3)),
            sum(len(c.slices) for c in cases),
            sum(len(ids) for c in cases for _, ids in c.slices),
        ]
        size = " x ".join(str(round(median(c.shape[k] for c in cases))) for k in (1, 2)) if cases else ""
        known = sum(c.spacing is not None for c in cases)
        return modality or "all", *map(str, counts), size, str(known)


def check(dataset_dir: str | os.PathLike[str], *, workers: int | None = None, progress: bool = True) -> CheckReport:
    """Check that the index can be loaded and agrees with the arrays.

    A slice may list only some of its masks (``--max_masks``); everything else must agree with ``dataset.json``.
    No file is changed.

    Args:
        dataset_dir: folder of the prepared set.
        workers: processes; default: by the size of the set, at most 8 and the CPU cores. 1 runs in this process.
        progress: show a progress bar on a terminal.

    Returns:
        The report; a set that cannot be loaded is one of its problems.

    Raises:
        InputError: a worker process was killed.
    """
    root = Path(os.path.abspath(dataset_dir))
    try:
        prepared = load_dataset(root)
    except InputError as error:
        problems = list(dict.fromkeys([str(error), *_missing_arrays(root)]))
        return CheckReport(problems=problems, warnings=[], training=[], validation=[])
    index = _read_json(root)
    digests = {entry["case"]: entry.get("digest") for part in _PARTS for entry in index[part]}
    records = prepared.training + prepared.validation
    jobs = [(record, digests[record.case], root / INDEX_NAME) for record in records]
    if workers is None:
        voxels = sum(math.prod(record.shape) for record in records)
        workers = min(os.cpu_count() or 1, 8, 1 + voxels // _VOXELS_A_WORKER)
    bar = tqdm(_outcomes(jobs, workers), total=len(jobs), unit="case", disable=None if progress else True)
    outcomes = list(bar)
    of_the_set = [*_head_problems(root, index, prepared.modalities), *_unlisted_files(root, records)]
    return CheckReport(
        problems=[*of_the_set, *(line for outcome in outcomes for line in outcome.problems)],
        warnings=[*(line for outcome in outcomes for line in outcome.warnings), *_limited(root, outcomes)],
        training=prepared.training,
        validation=prepared.validation,
    )


@dataclass(frozen=True)
class _Outcome:
    problems: list[str]
    warnings: list[str]
    unlisted: int  # masks in the label array that are not in the index


_Job = tuple[CaseRecord, "str | None", Path]


def _outcomes(jobs: list[_Job], workers: int) -> Iterator[_Outcome]:
    if min(workers, len(jobs)) <= 1:
        yield from map(_check_case, jobs)
        return
    context = multiprocessing.get_context("spawn")  # as in the pipeline: safe on every system
    try:
        with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool:
            yield from pool.map(_check_case, jobs, chunksize=min(16, math.ceil(len(jobs) / workers)))
    except BrokenProcessPool as error:
        found = "a worker process that ended early"
        raise InputError("arguments", "workers", found, "fewer workers, or more memory") from error


def _check_case(job: _Job) -> _Outcome:
    record, digest, index = job
    problems, warnings, unlisted = list(_field_problems(record, index)), [], 0
    image_shape = record.shape if record.channels == 1 else (*record.shape, record.channels)
    image = _open_as(record.image, image_shape, (np.uint8,), problems)
    if image is not None:
        if digest is not None and (now := image_digest(image)) != digest:
            problems.append(_line(record.image, "digest", now, f"{digest}, as {INDEX_NAME} says"))
        if _is_constant(image):
            warnings.append(_line(record.image, "values", f"only {image.flat[0]}", "an image that is not constant"))
    label = _open_as(record.label, record.shape, (np.uint8, np.uint16), problems)
    if label is not None:
        lines, unlisted = _content_problems(record, label, index)
        problems += lines
    return _Outcome(problems, warnings, unlisted)


def _open_as(path: Path, shape: tuple[int, ...], types: tuple[type, ...], problems: list[str]) -> np.ndarray | None:
    """Open an array; if it does not have the expected form, add the problems and return None."""
    try:
        array = open_array(path)
    except InputError as error:
        problems.append(str(error))
        return None
    lines = []
    if array.dtype not in types:
        lines.append(_line(path, "dtype", array.dtype, ", ".join(t.__name__ for t in types)))
    if array.shape != shape:
        lines.append(_line(path, "shape", array.shape, f"{shape}, as {INDEX_NAME} says"))
    problems += lines
    return None if lines else array


def _field_problems(record: CaseRecord, index: Path) -> Iterator[str]:
    if record.dimension not in (2, 3) or (record.dimension == 2 and record.shape[0] != 1):
        found = f"{record.dimension} with {record.shape[0]} slices"
        yield _line(index, f"{record.case}.dimension", found, "2 with one slice, or 3")
    if record.channels not in (1, 3):
        yield _line(index, f"{record.case}.channels", record.channels, "1, 3")
    if record.spacing is not None and not all(0 < step < math.inf for step in record.spacing):
        yield _line(index, f"{record.case}.spacing", list(record.spacing), "three positive numbers, or null")
    unnamed = [i for i, name in record.labels.items() if not name.strip()]
    if unnamed:
        yield _line(index, f"{record.case}.labels", f"no name for ids {_some(unnamed)}", "a name for every id")
    places = [z for z, _ in record.slices]
    if not _ascending(places, 0, record.shape[0] - 1):
        yield _line(index, f"{record.case}.slices", _some(places), f"ascending z in 0 to {record.shape[0] - 1}")
    for z, ids in record.slices:
        if not ids or not _ascending(ids, 1, np.iinfo(np.uint16).max):
            yield _line(index, f"{record.case}.slices (z {z})", _some(ids), "one or more ascending ids above 0")


def _content_problems(record: CaseRecord, label: np.ndarray, index: Path) -> tuple[list[str], int]:
    """Compare a label array with its index; return the problems and the number of unlisted masks."""
    present, listed = dict(slice_index(label)), dict(record.slices)
    if not present:
        return [_line(record.label, "label", "no foreground", "at least one id above 0")], 0
    problems = []
    occurring = {i for ids in present.values() for i in ids}
    for ids, found, allowed in (
        (occurring - record.labels.keys(), "no name for ids", "a name for every id in the label array"),
        (record.labels.keys() - occurring, "names of ids", "ids that are in the label array"),
    ):
        if ids:
            problems.append(_line(index, f"{record.case}.labels", f"{found} {_some(sorted(ids))}", allowed))
    absent = {z: sorted(set(ids) - set(present.get(z, ()))) for z, ids in listed.items()}
    for z in (z for z, ids in absent.items() if ids):
        problems.append(_line(record.label, f"slice {z}", f"no pixel of ids {_some(absent[z])}", "the ids listed"))
    skipped = sorted(present.keys() - listed.keys())
    if skipped:
        found = f"no entry for slices {_some(skipped)}"
        problems.append(_line(index, f"{record.case}.slices", found, "every slice with foreground"))
    return problems, sum(len(set(present[z]) - set(ids)) for z, ids in listed.items() if z in present)


def _is_constant(image: np.ndarray) -> bool:
    return all((plane == image.flat[0]).all() for plane in image)  # stops at the first plane that differs


def _head_problems(root: Path, index: dict[str, Any], present: tuple[str, ...]) -> Iterator[str]:
    if index.get("modalities") != list(present):
        yield _line(root / INDEX_NAME, "modalities", index.get("modalities"), f"those of the cases, {list(present)}")
    # Sets of earlier versions have no digest: all their images count as different.
    parts = [[{"digest": entry["case"]} | entry for entry in index[part]] for part in _PARTS]
    for leak in find_leaks(*parts, SplitRule()):
        yield _line(root / INDEX_NAME, "split", leak, "patients and images on one side only")


def _unlisted_files(root: Path, records: list[CaseRecord]) -> Iterator[str]:
    if not (root / ARRAYS).is_dir():
        return
    listed = {os.path.normpath(path) for record in records for path in (record.image, record.label)}
    for path in sorted((root / ARRAYS).iterdir()):
        if str(path) not in listed:
            yield _line(path, "file", f"one that is not in {INDEX_NAME}", "the arrays of the cases")


def _limited(root: Path, outcomes: list[_Outcome]) -> Iterator[str]:
    masks, cases = sum(o.unlisted for o in outcomes), sum(o.unlisted > 0 for o in outcomes)
    if masks:
        found = f"{masks} masks in {cases} cases are not listed"
        yield _line(root / INDEX_NAME, "slices", found, "some of a slice's masks, as with --max_masks")


def _missing_arrays(root: Path) -> Iterator[str]:
    """Report every missing array; loading stops at the first."""
    try:
        index = _read_json(root)
        entries = [(part, n, entry) for part in _PARTS for n, entry in enumerate(index[part])]
        for part, n, entry in entries:
            for key in ("image", "label"):
                file = root / entry[key]
                if not file.is_file():
                    place = f"{part}[{n}] ({entry['case']}).{key}"
                    yield _line(root / INDEX_NAME, place, f"no file {file}", "an array file that exists")
    except (OSError, ValueError, TypeError, KeyError):
        return  # without an index; loading has reported that


def _read_json(root: Path) -> dict[str, Any]:
    return read_json(root / INDEX_NAME, "a prepared dataset")


def _ascending(values: list[int] | tuple[int, ...], low: int, high: int) -> bool:
    pairs = zip([low - 1, *values], [*values, high + 1], strict=True)
    return all(a < b for a, b in pairs)


def _some(values: list[int] | tuple[int, ...]) -> str:
    shown = ", ".join(map(str, values[:8]))
    return f"[{shown}]" if len(values) <= 8 else f"[{shown}, ...] ({len(values)})"


def _line(source: str | os.PathLike[str], field: str, found: object, allowed: str) -> str:
    return str(InputError(source, field, found, allowed))
