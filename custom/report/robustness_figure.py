"""Scores over the looseness of the boxes, as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

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
