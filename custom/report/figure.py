"""A comparison as a figure: each run's mean in each modality, and over them."""

from __future__ import annotations

from io import BytesIO

from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from custom.report.comparison import Comparison
from custom.report.runs import METRICS
from custom.report.tables import OVERALL

_MARKERS = "osD^vP*X"


def draw(comparison: Comparison) -> bytes:
    """Return a PNG: a panel for each metric, a line for each modality, a mark for each run.

    The lowest line is the mean over modalities with its standard deviation.
    """
    names, runs = [*comparison.modalities, None], comparison.runs
    figure = Figure(figsize=(11, 1.8 + 0.45 * len(names) + 0.2 * len(runs)), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(METRICS), sharey=True)
    colours = colormaps["tab10"].colors
    for panel, metric in zip(panels, METRICS, strict=True):
        for k, run in enumerate(runs):
            scores = [comparison.row(run, name).scores[metric] for name in names]
            shift = 0.6 * ((k + 0.5) / len(runs) - 0.5)
            style = {"color": colours[k % len(colours)], "marker": _MARKERS[k // len(colours) % len(_MARKERS)]}
            heights = [y + shift for y in range(len(names))]
            panel.plot([s.mean for s in scores], heights, linestyle="", markersize=5, label=run, **style)
            panel.errorbar(scores[-1].mean, heights[-1], xerr=scores[-1].std, color=style["color"], linewidth=1)
        panel.axhline(len(names) - 1.5, color="0.4", linewidth=0.8)
        panel.set_yticks(range(len(names)), [name or OVERALL for name in names])
        panel.set_xlabel(f"{metric.upper()} (%)")
        panel.grid(axis="x", color="0.9")
        panel.set_axisbelow(True)
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(runs)), frameon=False)
    image = BytesIO()
    figure.savefig(image, format="png")
    return image.getvalue()
