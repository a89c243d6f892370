"""Prepare every case of a reader in parallel, write ``dataset.json`` last, and report the outcome."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from custom.atomic_write import write_whole
from custom.data.prepared import FORMAT, INDEX_NAME, VERSION
from custom.errors import InputError
from custom.modalities import MODALITIES
from data_prep.journal import DRAWN, REPORT_NAME, Journal, reader_key, source_fingerprint, to_json_bytes
from data_prep.readers.base import TRAIN, VALIDATION, Reader, Source
from data_prep.splits import ERROR, WARN, SplitRule, draw_splits, find_leaks
from data_prep.writer import ARRAYS, Outcome, PrepareOptions, prepare_case

_LEAKS_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Report:
    """The outcome of a run.

    Attributes:
        training: entries of ``dataset.json``.
        validation: entries of ``dataset.json``.
        skipped: one line for each case that could not be read.
        left_out: one line for each case whose masks are all smaller than ``min_size``.
        leakage: one line for each patient or image that is in training and in validation.
        reused: number of cases that an earlier run had prepared.
        seconds: wall time.
        size: bytes written.
    """

    training: list[dict[str, Any]]
    validation: list[dict[str, Any]]
    skipped: list[str]
    left_out: list[str]
    leakage: list[str]
    reused: int
    seconds: float
    size: int

    def table(self) -> str:
        """Return the number of cases and masks by modality as text."""
        rows = [("modality", "train", "val", "masks")]
        parts = [Counter(record["modality"] for record in part) for part in (self.training, self.validation)]
        masks: Counter[str] = Counter()
        for record in self.training + self.validation:
            masks[record["modality"]] += len(record["labels"])
        rows += [(m, parts[0][m], parts[1][m], masks[m]) for m in MODALITIES if masks[m]]
        rows.append(("all", len(self.training), len(self.validation), masks.total()))
        return "\n".join(f"{name:<12}{train:>7}{val:>7}{count:>8}" for name, train, val, count in rows)


def prepare(
    reader: Reader,
    out: str | Path,
    *,
    options: PrepareOptions | None = None,
    splits: SplitRule | None = None,
    workers: int = 1,
    progress: bool = True,
) -> Report:
    """Prepare the cases of a reader that are new or have changed.

    The folder then holds ``arrays``, ``report.json`` (the cases that were refused or left out, and why) and
    ``dataset.json``, which is the same byte for byte however often the run was interrupted. During a run, and after an
    interruption, there is no ``dataset.json`` (see :mod:`data_prep.journal`). Arrays of cases that the reader no longer
    has are removed at the end. Refused cases are tried again by the next run.

    Args:
        reader: the source of the cases.
        out: folder to write to; created if needed.
        options: options for every case; None uses the defaults.
        splits: how cases without a split are divided; None uses the defaults.
        workers: processes; each holds one case at a time. 1 runs in this process.
        progress: show a progress bar on a terminal.

    Returns:
        The report. ``dataset.json`` is written only if a case was prepared.

    Raises:
        InputError: there is no source, ``out`` cannot be written or is in use, training and validation share a
            patient or an image, or a worker was killed.
    """
    start, out = time.perf_counter(), Path(out)
    options, splits = options or PrepareOptions(), splits or SplitRule()
    key = reader_key(reader)
    sources = _refuse_duplicates(reader.sources())
    prints = [source_fingerprint(source, options, key) for source in sources]
    with _writing_to(out):
        (out / ARRAYS).mkdir(parents=True, exist_ok=True)
        with Journal(out) as journal:
            run = partial(prepare_case, reader=reader, out=out, options=options)
            outcomes, kept = _prepare_missing(journal, sources, prints, run, workers, progress)
            parts = _divide([outcome for outcome in outcomes if outcome.record], splits)
            leaks = find_leaks(*parts, splits)
            if leaks and splits.leakage == ERROR:
                journal.start(kept, ())
                _refuse_leaks(out, leaks)
            _remove_others(out, *parts)
            size = sum(outcome.size for outcome in outcomes) + _write_report(out, *parts, outcomes, leaks)
            if not (out / INDEX_NAME).exists() and hasattr(os, "sync"):
                os.sync()  # the arrays reach the disk before the index that lists them
            if any(parts):
                size += _write_index(out, reader.name, *parts)
            journal.finish()
    return Report(
        training=parts[0],
        validation=parts[1],
        skipped=[o.problem for o in outcomes if o.failed],
        left_out=[o.problem for o in outcomes if o.problem and not o.failed],
        leakage=leaks,
        reused=sum(outcome.record is not None for outcome in kept),
        seconds=time.perf_counter() - start,
        size=size,
    )


def _prepare_missing(
    journal: Journal, sources: list[Source], prints: list[str], run: partial[Outcome], workers: int, progress: bool
) -> tuple[list[Outcome], list[Outcome]]:
    """Return the outcomes of all sources, in order, and those reused from an earlier run."""
    outcomes = [
        None if source.error else journal.reusable(source.name, print_)
        for source, print_ in zip(sources, prints, strict=True)
    ]
    kept = [outcome for outcome in outcomes if outcome]
    todo = {n: source for n, source in enumerate(sources) if outcomes[n] is None}
    if todo or journal.describes_others({outcome.case for outcome in kept if outcome.record}):
        journal.start(kept, (source.name for source in todo.values()))
    with closing(_outcomes(run, todo, workers)) as finished:
        for n, outcome in tqdm(finished, total=len(todo), unit="case", disable=None if progress else True):
            if outcome.record:
                outcome.record["fingerprint"] = prints[n]
            outcomes[n] = replace(outcome, fingerprint=prints[n])
            if not outcome.failed:
                journal.add(outcomes[n])
    return outcomes, kept


@contextmanager
def _writing_to(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        place = error.filename or out
        raise InputError(
            place, "out", error.strerror or error, "a folder that can be written, with free space"
        ) from error


def _outcomes(run: partial[Outcome], todo: dict[int, Source], workers: int) -> Iterator[tuple[int, Outcome]]:
    """Prepare the sources and yield (number, outcome), in the order of completion."""
    if min(workers, len(todo)) <= 1:
        for number, source in todo.items():
            yield number, run(source)
        return
    # "spawn" works on every system, and is safe if this process has threads (a forked lock could hang).
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(todo)), mp_context=context, initializer=_start_worker)
    try:
        numbers = {pool.submit(run, source): number for number, source in todo.items()}
        for future in as_completed(numbers):
            yield numbers.pop(future), future.result()
    except BrokenProcessPool as error:
        found = "a worker process that ended early"
        raise InputError("arguments", "workers", found, "fewer workers, or more memory") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Let the main process handle Ctrl-C and SIGTERM, and end with it even if it is killed and started again."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _refuse_duplicates(sources: list[Source]) -> list[Source]:
    """Refuse all sources with the same name: they would overwrite each other, and none has precedence."""
    counts = Counter(source.name for source in sources if source.error is None)
    checked = []
    for source in sources:
        if counts[source.name] > 1 and source.error is None:
            place = source.files[0] if source.files else "sources"
            found = f"{counts[source.name]} cases named {source.name!r}"
            source = replace(source, error=InputError(place, "case", found, "unique names"))
        checked.append(source)
    return checked


def _divide(outcomes: list[Outcome], rule: SplitRule) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the records for training and for validation; a drawn split is marked in its record."""
    parts: dict[str, list[dict[str, Any]]] = {TRAIN: [], VALIDATION: []}
    splits = draw_splits([o.record for o in outcomes], [o.split for o in outcomes], rule)
    for outcome, split in zip(outcomes, splits, strict=True):
        parts[split].append(outcome.record if outcome.split else outcome.record | {DRAWN: True})
    return parts[TRAIN], parts[VALIDATION]


def _refuse_leaks(out: Path, leaks: list[str]) -> None:
    shown = "; ".join(leaks[:_LEAKS_SHOWN]) + ("; ..." if len(leaks) > _LEAKS_SHOWN else "")
    allowed = f"patients and images on one side only (--leakage {WARN} prepares the set anyway)"
    raise InputError(out, "split", f"{len(leaks)} on both sides: {shown}", allowed)


def _remove_others(out: Path, *parts: Sequence[dict[str, Any]]) -> None:
    """Remove the arrays that no record lists; files with other names are not ours."""
    named = {record[key] for part in parts for record in part for key in ("image", "label")}
    for kind in ("image", "label"):
        for path in (out / ARRAYS).glob(f"*.{kind}.npy"):
            if f"{ARRAYS}/{path.name}" not in named:
                path.unlink()


def _write_report(
    out: Path,
    training: list[dict[str, Any]],
    validation: list[dict[str, Any]],
    outcomes: list[Outcome],
    leaks: list[str],
) -> int:
    counts = {"training": len(training), "validation": len(validation)}
    skipped = [{"case": o.case, "problem": o.problem} for o in outcomes if o.failed]
    small = [o for o in outcomes if o.problem and not o.failed]
    left_out = [{"case": o.case, "problem": o.problem, "fingerprint": o.fingerprint} for o in small]
    return _write_lines(out / REPORT_NAME, counts, {"skipped": skipped, "left_out": left_out, "leakage": leaks})


def _write_index(out: Path, name: str, training: list[dict[str, Any]], validation: list[dict[str, Any]]) -> int:
    present = {record["modality"] for record in training + validation}
    head = {"format": FORMAT, "version": VERSION, "name": name, "modalities": [m for m in MODALITIES if m in present]}
    return _write_lines(out / INDEX_NAME, head, {"training": training, "validation": validation})


def _write_lines(path: Path, head: dict[str, Any], lists: dict[str, list[Any]]) -> int:
    """Write a JSON object in one step, one line for each item of its lists, so that it can be read and compared."""
    fields = [json.dumps(key).encode() + b": " + to_json_bytes(value) for key, value in head.items()]
    for key, items in lists.items():
        body = b"\n" + b",\n".join(map(to_json_bytes, items)) + b"\n" if items else b""
        fields.append(json.dumps(key).encode() + b": [" + body + b"]")
    return write_whole(path, lambda file: file.write(b"{" + b",\n".join(fields) + b"}\n"))
