"""Prepare every case of a reader in parallel, write ``dataset.json`` last, and tell what happened."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from custom.data.prepared import FORMAT, INDEX_NAME, VERSION
from custom.errors import InputError
from custom.files import write_whole
from custom.modalities import MODALITIES
from data_prep.readers.base import TRAIN, VALIDATION, Reader, Source
from data_prep.writer import ARRAYS, Options, Outcome, prepare_case


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a run did.

    Attributes:
        training: entries of ``dataset.json``.
        validation: entries of ``dataset.json``.
        skipped: one line for each case that could not be read.
        left_out: one line for each case whose masks are all smaller than ``min_size``.
        seconds: wall time.
        size: bytes written.
    """

    training: list[dict[str, Any]]
    validation: list[dict[str, Any]]
    skipped: list[str]
    left_out: list[str]
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


def prepare(reader: Reader, out: str | Path, *, options: Options, workers: int, progress: bool = True) -> Report:
    """Prepare every case of a reader.

    Args:
        reader: gives the cases.
        out: folder to write to; made if needed. An earlier ``dataset.json`` there is replaced.
        options: what is done to every case.
        workers: processes; each holds one case at a time. 1 runs in this process.
        progress: show a progress bar on a terminal.

    Returns:
        The report. ``dataset.json`` is written last, and only if a case was prepared.

    Raises:
        InputError: there is no source, two sources have the same name, ``out`` is no folder, or a worker was killed.
    """
    start, out = time.perf_counter(), Path(out)
    sources = reader.sources()
    _check_unique(sources)
    try:
        (out / ARRAYS).mkdir(parents=True, exist_ok=True)
        (out / INDEX_NAME).unlink(missing_ok=True)  # it would describe arrays that are replaced now
    except OSError as error:
        raise InputError(out, "out", error.strerror, "a folder that can be written") from error
    run = partial(prepare_case, reader=reader, out=out, options=options)
    bar = tqdm(_outcomes(run, sources, workers), total=len(sources), unit="case", disable=None if progress else True)
    outcomes = list(bar)
    parts = {s: [o.record for o in outcomes if o.split == s and o.record] for s in (TRAIN, VALIDATION)}
    size = sum(o.size for o in outcomes)
    if any(parts.values()):
        size += _write_index(out, reader.name, parts[TRAIN], parts[VALIDATION])
    return Report(
        training=parts[TRAIN],
        validation=parts[VALIDATION],
        skipped=[o.problem for o in outcomes if o.failed],
        left_out=[o.problem for o in outcomes if o.problem and not o.failed],
        seconds=time.perf_counter() - start,
        size=size,
    )


def _outcomes(run: partial[Outcome], sources: list[Source], workers: int) -> Iterator[Outcome]:
    if workers == 1:
        yield from map(run, sources)
        return
    # "spawn" works on every system, and is safe where this process has threads (a forked lock could hang).
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(min(workers, len(sources)), mp_context=context) as pool:
            yield from pool.map(run, sources)
    except BrokenProcessPool as error:
        found = "a worker process that ended early"
        raise InputError("arguments", "workers", found, "fewer workers, or more memory") from error


def _check_unique(sources: list[Source]) -> None:
    for name, count in Counter(source.name for source in sources).items():
        if count > 1:
            raise InputError("sources", "case", f"{count} cases named {name!r}", "unique names")


def _write_index(out: Path, name: str, training: list[dict[str, Any]], validation: list[dict[str, Any]]) -> int:
    present = {record["modality"] for record in training + validation}
    head = {"format": FORMAT, "version": VERSION, "name": name, "modalities": [m for m in MODALITIES if m in present]}
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    for key, records in (("training", training), ("validation", validation)):
        body = ",\n".join(json.dumps(record, ensure_ascii=False, allow_nan=False) for record in records)
        lines.append(f'"{key}": [\n{body}\n]')
    text = "{" + ",\n".join(lines) + "}\n"  # one line for each case, so that it can be read and compared
    return write_whole(out / INDEX_NAME, lambda file: file.write(text.encode("utf-8")))
