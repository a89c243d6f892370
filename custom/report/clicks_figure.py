"""DSC over clicks as a figure, from the steps of ``custom.report.clicks``."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from custom.report.clicks_tables import BOX, CLICKS, Step, chosen, mean_curve, objects

_PANELS = ("seen data sets", "new data sets")


def draw(steps: Sequence[Step]) -> bytes:
    """Return a PNG: a panel for seen and one for new data sets, a line for each network and start.

    Args:
        steps: of all networks.
    """
    curves = objects(steps)
    networks = list(dict.fromkeys(step.network for step in steps))
    colours = colormaps["tab10"].colors
    figure = Figure(figsize=(10, 4.5), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(_PANELS), sharey=True)
    lines = {}
    for panel, data in zip(panels, _PANELS, strict=True):
        for network, start in dict.fromkeys((step.network, step.start) for step in steps):
            own = chosen(curves, network, start, data)
            if own:
                style = {"color": colours[networks.index(network) % len(colours)], "marker": "o"}
                style["linestyle"] = "-" if start == BOX else "--"
                name = f"{network}, from a {start}"
                (lines[name],) = panel.plot(range(CLICKS + 1), mean_curve(own, "dsc"), **style)
        panel.set_title(data)
        panel.set_xlabel("clicks on errors")
        panel.grid(color="0.9")
        panel.set_axisbelow(True)
    panels[0].set_ylabel("DSC (%), mean over modalities")
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=min(4, len(lines)), frameon=False)
    image = BytesIO()
    figure.savefig(image, format="png")
    return image.getvalue()
