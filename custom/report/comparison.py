"""Statistics of runs: the paper's means and deviations, and Wilcoxon's signed-rank test against a reference run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import wilcoxon

from custom.errors import InputError
from custom.modalities import MODALITIES
from custom.report.runs import METRICS, Run, check_same_cases

#: Below this p a difference is marked.
ALPHA = 0.05
_DECIMALS = 6  # those of cases.csv


@dataclass(frozen=True)
class MetricScore:
    """One metric of one row, in percent.

    Attributes:
        mean: mean over the modality's cases; in the overall row mean over the modalities' means.
        std: standard deviation (ddof = 0) of the same values.
        seed_std: standard deviation (ddof = 1) of ``mean`` over the seeds, None with one seed.
        p: two-sided p of the difference from the reference run, only in the overall row and not of the reference.
    """

    mean: float
    std: float
    seed_std: float | None
    p: float | None = None

    @property
    def differs(self) -> bool:
        """Whether the difference from the reference run is marked."""
        return self.p is not None and self.p < ALPHA


@dataclass(frozen=True)
class Row:
    """Scores of one run in one modality, or over all of them where ``modality`` is None."""

    run: str
    seeds: int
    modality: str | None
    cases: int
    scores: Mapping[str, MetricScore]


@dataclass(frozen=True)
class Comparison:
    """Rows of all runs, modality by modality and then overall, and the name of the reference run."""

    rows: tuple[Row, ...]
    reference: str | None

    @property
    def runs(self) -> list[str]:
        """Names of the runs."""
        return list(dict.fromkeys(row.run for row in self.rows))

    @property
    def modalities(self) -> list[str]:
        """Names of the modalities, in the order of ``MODALITIES``."""
        return list(dict.fromkeys(row.modality for row in self.rows if row.modality is not None))

    def row(self, run: str, modality: str | None = None) -> Row:
        """Return one row; the overall one by default."""
        return next(row for row in self.rows if (row.run, row.modality) == (run, modality))


def compare(runs: Sequence[Run], reference: str | None = None) -> Comparison:
    """Compute all rows (MCP-MedSAM, Tables 1 and 3 to 5).

    A case's score is its mean over the seeds. Scores are averaged inside each modality, then over modalities, so that
    every modality counts the same. The test is Wilcoxon's signed-rank test, two-sided, over all cases in pairs of run
    and reference. Its rule for zero differences is Wilcoxon's own: such pairs are left out. With nothing but zeros
    p is 1. There is no correction for the number of comparisons.

    Args:
        runs: the runs, all with the same cases.
        reference: name of the run the others are tested against; no test by default.

    Raises:
        InputError: no run, two of the same name, no run of the reference's name, or other cases.
    """
    names = [run.name for run in runs]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if not runs or repeated:
        raise InputError("runs", "names", repr(repeated) if runs else "none", "a name for each: NAME=FOLDER")
    if reference is not None and reference not in names:
        raise InputError("arguments", "reference", repr(reference), ", ".join(names))
    for run in runs[1:]:
        check_same_cases(runs[0].cases, runs[0].name, run.cases, run.name)
    base = None if reference is None else runs[names.index(reference)]
    return Comparison(tuple(row for run in runs for row in _rows(run, base)), reference)


def signed_rank_p(scores: np.ndarray, reference: np.ndarray) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test over C pairs; zero differences are left out."""
    difference = np.round(scores - reference, _DECIMALS)  # means over seeds that are equal but for rounding are equal
    difference = difference[difference != 0]
    return float(wilcoxon(difference).pvalue) if len(difference) else 1.0


def _rows(run: Run, base: Run | None) -> list[Row]:
    modality = np.array([m for _, m, _ in run.cases])
    present = [m for m in MODALITIES if (modality == m).any()]
    by_modality: dict[str, dict[str, MetricScore]] = {m: {} for m in present}
    overall = {}
    for metric in METRICS:
        scores = run.scores[metric]  # SxC
        means = np.stack([scores[:, modality == m].mean(axis=1) for m in present])  # MxS
        for m, mean in zip(present, means, strict=True):
            cases = scores[:, modality == m].mean(axis=0)
            by_modality[m][metric] = MetricScore(float(cases.mean()), float(cases.std()), _seed_std(mean))
        p = None
        if base is not None and base is not run:
            p = signed_rank_p(scores.mean(axis=0), base.scores[metric].mean(axis=0))
        average = means.mean(axis=1)
        overall[metric] = MetricScore(float(average.mean()), float(average.std()), _seed_std(means.mean(axis=0)), p)
    rows = [Row(run.name, run.seeds, m, int((modality == m).sum()), by_modality[m]) for m in present]
    return [*rows, Row(run.name, run.seeds, None, len(modality), overall)]


def _seed_std(values: np.ndarray) -> float | None:
    return float(values.std(ddof=1)) if len(values) > 1 else None
