"""Scores over the looseness of the boxes, as a figure: ``python -m custom.report.robustness_figure CSV --out PNG``."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import fire
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from custom.command_line import told_in_one_line
from custom.errors import InputError
from custom.files import write_whole
from custom.report.runs import METRICS

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
    path = Path(str(table))
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [{**row, **{key: float(row[key]) for key in ("value", *METRICS)}} for row in csv.DictReader(file)]
    except OSError as error:
        raise InputError(path, "table", error.strerror, "a robustness.csv") from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(path, "table", f"{error}", "the columns and numbers of a robustness.csv") from error
    if not rows or not {"checkpoint", "boxes"} <= rows[0].keys():
        raise InputError(path, "table", "no lines or no checkpoints", "the lines of a robustness.csv")
    image = draw(rows)
    write_whole(Path(str(out)), lambda file: file.write(image))


if __name__ == "__main__":
    with told_in_one_line():
        fire.Fire(redraw, name="python -m custom.report.robustness_figure")
