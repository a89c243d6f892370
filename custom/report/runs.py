"""Read what an evaluation leaves: the ``cases.csv`` of one run, or of the seeds of one experiment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from custom.errors import InputError
from custom.modalities import canonical_modality
from custom.report.rows import read_rows

METRICS = ("dsc", "nsd")
CASES_FILE = "cases.csv"
_COLUMNS = ("case", "modality", "n_masks", *METRICS)
_ALLOWED = f"a folder with {CASES_FILE} (or eval/{CASES_FILE}), or with such folders seed_0, seed_1, ..."


@dataclass(frozen=True)
class Run:
    """The scores of one experiment; S seeds, C cases in one order.

    Attributes:
        name: name in tables and figures.
        cases: (case, modality, number of masks scored), ordered by case.
        scores: "dsc" and "nsd" in percent, each (S, C).
    """

    name: str
    cases: tuple[tuple[str, str, int], ...]
    scores: Mapping[str, np.ndarray]

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return len(self.scores[METRICS[0]])


def parse_run(text: str) -> Run:
    """Read a run as the command line names it: ``FOLDER``, ``NAME=FOLDER``, or ``NAME=FOLDER,FOLDER``.

    Raises:
        InputError: as ``read_run``.
    """
    name, equals, folders = text.partition("=")
    return read_run(name, folders.split(",")) if equals else read_run(Path(text).resolve().name, [text])


def read_run(name: str, folders: Sequence[str | PathLike[str]]) -> Run:
    """Read the scores of one experiment.

    Args:
        name: name of the run.
        folders: one folder a seed. A folder holds ``cases.csv``, or ``eval/cases.csv``, or folders ``seed_0``,
            ``seed_1``, ... that do.

    Raises:
        InputError: there is no such file, a column or a value is missing, or the seeds have other cases.
    """
    files = [file for folder in folders for file in _files(Path(folder))]
    tables = [_read(file) for file in files]
    cases = sorted(tables[0])
    for file, table in zip(files[1:], tables[1:], strict=True):
        check_same_cases(cases, files[0], sorted(table), file)
    scores = {m: np.array([[table[case][m] for case in cases] for table in tables]) for m in METRICS}
    return Run(name, tuple(cases), scores)


def check_same_cases(
    wanted: Sequence[tuple[str, str, int]], source: str | Path, found: Sequence[tuple[str, str, int]], other: str | Path
) -> None:
    """Check that two runs scored the same masks of the same cases.

    Raises:
        InputError: they did not; it names the first cases that differ.
    """
    differing = sorted(set(wanted) ^ set(found))
    if differing:
        names = list(dict.fromkeys(case for case, _, _ in differing))
        text = ", ".join(_describe(name, wanted, found) for name in names[:3])
        raise InputError(other, "cases", f"{len(names)} that differ: {text}", f"the cases of {source}")


def _describe(name: str, wanted: Sequence[tuple[str, str, int]], found: Sequence[tuple[str, str, int]]) -> str:
    entries = [next((f"{m}, {n} masks" for case, m, n in side if case == name), None) for side in (wanted, found)]
    if entries[1] is None:
        return f"{name} (missing)"
    return f"{name} (not expected)" if entries[0] is None else f"{name} ({entries[1]} instead of {entries[0]})"


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(folder, "run", "no folder", _ALLOWED)
    seeds = [path for path in folder.glob("seed_*") if path.name.removeprefix("seed_").isdigit()]
    for places in ([folder], sorted(seeds, key=lambda path: int(path.name.removeprefix("seed_")))):
        files = [_file(place) for place in places]
        if files and all(files):
            return files
    lacking = [place.name for place in seeds if not _file(place)]
    raise InputError(folder, "run", f"no {CASES_FILE}" + (f" in {', '.join(lacking)}" if lacking else ""), _ALLOWED)


def _file(folder: Path) -> Path | None:
    return next((file for file in (folder / CASES_FILE, folder / "eval" / CASES_FILE) if file.is_file()), None)


def _read(path: Path) -> dict[tuple[str, str, int], dict[str, float]]:
    table, seen = {}, set()
    for number, row in read_rows(path, _COLUMNS):
        where = f"line {number}"
        try:
            case, masks = row["case"], int(row["n_masks"])
            scores = {metric: float(row[metric]) for metric in METRICS}
        except (TypeError, ValueError) as error:
            raise InputError(path, where, error, "a case with its number of masks and its scores") from None
        if not all(math.isfinite(score) for score in scores.values()):
            raise InputError(path, where, f"{scores}", "finite scores")
        if case in seen:
            raise InputError(path, where, f"{case!r} again", "each case once")
        seen.add(case)
        table[case, canonical_modality(row["modality"], f"{path}, {where}"), masks] = scores
    if not table:
        raise InputError(path, "cases", "none", "at least one case")
    return table
