"""A comparison as CSV and as Markdown."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from io import StringIO

from custom.report.comparison import ALPHA, Comparison, MetricScore
from custom.report.runs import METRICS

OVERALL = "mean over modalities"


def csv_table(comparison: Comparison) -> str:
    """Return every row with every number: percent, p as it is, empty where there is no value."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    fields = ("mean", "std", "seed_std", "p")
    columns = [metric if field == "mean" else f"{metric}_{field}" for metric in METRICS for field in fields]
    writer.writerow(["run", "seeds", "modality", "cases", *columns])
    for row in comparison.rows:
        values = [getattr(row.scores[metric], field) for metric in METRICS for field in fields]
        numbers = ["" if value is None else f"{value:.6g}" for value in values]
        writer.writerow([row.run, row.seeds, row.modality or OVERALL, row.cases, *numbers])
    return text.getvalue()


def markdown_tables(comparison: Comparison) -> str:
    """Return a table of the runs, what its marks mean, and a table of the modalities for each metric."""
    rows = [comparison.row(run) for run in comparison.runs]
    several = any(row.seeds > 1 for row in rows)
    head = ["run", "seeds", *(f"{metric.upper()} (%)" for metric in METRICS)]
    head += [f"{metric.upper()} std over seeds" for metric in METRICS] if several else []
    lines = []
    for row in rows:
        scores = [row.scores[metric] for metric in METRICS]
        seeds = ["" if score.seed_std is None else f"{score.seed_std:.2f}" for score in scores] if several else []
        lines.append([row.run, str(row.seeds), *map(_score, scores), *seeds])
    parts = [_table(head, lines), _notes(comparison), *(_modalities(comparison, metric) for metric in METRICS)]
    return "\n\n".join(parts) + "\n"


def _modalities(comparison: Comparison, metric: str) -> str:
    lines = []
    for modality in (*comparison.modalities, None):
        rows = [comparison.row(run, modality) for run in comparison.runs]
        lines.append([modality or OVERALL, str(rows[0].cases), *(_score(row.scores[metric]) for row in rows)])
    return _table([f"{metric.upper()} (%)", "cases", *comparison.runs], lines)


def _notes(comparison: Comparison) -> str:
    cases = comparison.row(comparison.runs[0]).cases
    text = f"Mean ± standard deviation over {len(comparison.modalities)} modalities, {cases} cases, in percent."
    if comparison.reference is not None:
        text += (
            f" † differs from {comparison.reference} (p < {ALPHA}, Wilcoxon signed-rank test over the cases, two-sided,"
            " pairs without a difference left out, not corrected for the number of comparisons)."
        )
    return text


def _score(score: MetricScore) -> str:
    return f"{score.mean:.2f} ± {score.std:.2f}{' †' if score.differs else ''}"


def _table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    head = list(head)
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *lines))
