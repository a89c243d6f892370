"""Scores over the looseness of the boxes, as a figure: ``python -m custom.report.robustness_figure CSV --out PNG``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from custom.atomic_write import write_whole
from custom.command_line import run
from custom.errors import InputError
from custom.report.rows import read_rows
from custom.report.runs import METRICS

#: The columns of ``robustness.csv``.
COLUMNS = ("checkpoint", "boxes", "value", *METRICS)
_LABELS = {"shift": "every side moved outwards (pixels of 256)", "enlargement": "box enlarged (%)"}


def draw(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return a PNG: a row of panels for each metric, a column for each kind of looseness, a line a checkpoint.

    Args:
        rows: lines of ``robustness.csv``.
    """
    figure = Figure(figsize=(10, 7), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(METRICS), len(_LABELS), sharey="row", sharex="col", squeeze=False)
    for line, metric in zip(panels, METRICS, strict=True):
        line[0].set_ylabel(f"{metric.upper()} (%)")
        for panel, (boxes, label) in zip(line, _LABELS.items(), strict=True):
            for name in dict.fromkeys(row["checkpoint"] for row in rows):
                own = [row for row in rows if row["checkpoint"] == name and row["boxes"] == boxes]
                panel.plot([row["value"] for row in own], [row[metric] for row in own], marker="o", label=name)
            panel.grid(color="0.9")
            panel.set_axisbelow(True)
            if metric == METRICS[-1]:
                panel.set_xlabel(label)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False)
    image = BytesIO()
    figure.savefig(image, format="png")
    return image.getvalue()


def redraw(table: str, out: str = "robustness.png") -> None:
    """Draw the curves of a ``robustness.csv`` again, without any evaluation.

    Args:
        table: the file.
        out: the PNG to write.

    Raises:
        InputError: the file cannot be read, or a column or a number is missing.
    """
    path, rows = Path(str(table)), []
    for number, row in read_rows(path, COLUMNS):
        try:
            rows.append({**row, **{column: float(row[column]) for column in ("value", *METRICS)}})
        except (TypeError, ValueError) as error:
            raise InputError(path, f"line {number}", error, "numbers in value, " + ", ".join(METRICS)) from None
    if not rows:
        raise InputError(path, "lines", "none", "the lines of a robustness.csv")
    image = draw(rows)
    write_whole(Path(str(out)), lambda file: file.write(image))


def main() -> None:
    """Run the command line."""
    run(redraw, name="python -m custom.report.robustness_figure")


if __name__ == "__main__":
    main()
