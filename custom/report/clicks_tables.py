"""Averages over the steps of ``custom.report.clicks``, and their tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from custom.modalities import MODALITIES

#: What an object starts with.
BOX, CLICK = "box", "click"
#: Clicks on errors that every object gets, and the largest number where clicks are counted.
CLICKS, NOC_CAP = 5, 20
#: DSC in percent until which clicks are counted.
TARGETS = (85, 90)
#: The numbers of clicks in the tables.
SHOWN = (0, 1, 3, 5)
#: The data of the tables: all, or by whether training has a case of the data set.
DATA: dict[str, Callable[[Step], bool]] = {
    "all data sets": lambda step: True,
    "seen data sets": lambda step: not step.new,
    "new data sets": lambda step: step.new,
}
_MEAN = "mean over modalities"


@dataclass(frozen=True, kw_only=True)
class Step:
    """The mask of one object after some clicks.

    Attributes:
        network: name of the checkpoint.
        case: name of the case.
        dataset: its data set.
        new: whether the training part has no case of that data set.
        modality: name.
        slice: number of the slice.
        label: id of the object.
        start: "box" or "click", what the object was started with.
        clicks: number of clicks on errors after the start.
        dsc: percent.
        nsd: percent.
        predicted_iou: as the network reports it.
        seconds: of this step; None for the first one on a slice, which encodes it, and where nothing was computed.
    """

    network: str
    case: str
    dataset: str
    new: bool
    modality: str
    slice: int
    label: int
    start: str
    clicks: int
    dsc: float
    nsd: float
    predicted_iou: float
    seconds: float | None


def number_of_clicks(dsc: Sequence[float], target: float, *, start: str, cap: int) -> int:
    """Return the number of clicks until DSC reaches a target: a click as the start counts, a box does not.

    Args:
        dsc: percent, after 0, 1, 2, ... clicks on errors.
        target: percent.
        start: "box" or "click".
        cap: largest number returned, also where the target is not reached.
    """
    reached = np.flatnonzero(np.asarray(dsc) >= target)
    return min(cap, int(reached[0]) + (start == CLICK)) if len(reached) else cap


def area(scores: Sequence[float]) -> float:
    """Return the area under a score over 0 to 5 clicks (trapezoids), divided by 5: percent as the score itself."""
    first, *inner, last = scores[: CLICKS + 1]
    return (first / 2 + sum(inner) + last / 2) / CLICKS


def objects(steps: Iterable[Step]) -> list[list[Step]]:
    """Return the steps of each object with each network and start, by number of clicks."""
    grouped: dict[Hashable, list[Step]] = defaultdict(list)
    for step in steps:
        grouped[step.network, step.start, step.case, step.slice, step.label].append(step)
    return [sorted(group, key=lambda step: step.clicks) for group in grouped.values()]


def modality_means(curves: Sequence[Sequence[Step]], value: Callable[[Sequence[Step]], float]) -> dict[str, float]:
    """Average a value of objects as an evaluation does: over the masks of a slice, the slices of a case, the cases.

    Returns:
        Mean by modality, in the order of ``MODALITIES``.
    """
    slices: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    for curve in curves:
        slices[curve[0].modality, curve[0].case, curve[0].slice].append(value(curve))
    cases: dict[tuple[str, str], list[float]] = defaultdict(list)
    for (modality, case, _), values in slices.items():
        cases[modality, case].append(float(np.mean(values)))
    grouped: dict[str, list[float]] = defaultdict(list)
    for (modality, _), values in cases.items():
        grouped[modality].append(float(np.mean(values)))
    return {modality: float(np.mean(grouped[modality])) for modality in MODALITIES if modality in grouped}


def mean_curve(curves: Sequence[Sequence[Step]], metric: str) -> list[float]:
    """Return the mean over modalities of "dsc" or "nsd" after 0 to 5 clicks."""
    values = [modality_means(curves, partial(_after, metric=metric, clicks=k)) for k in range(CLICKS + 1)]
    return [float(np.mean(list(means.values()))) for means in values]


def chosen(
    curves: Iterable[Sequence[Step]], network: str, start: str, data: str = "all data sets"
) -> list[Sequence[Step]]:
    """Return the objects of one network, start and part of the data."""
    return [c for c in curves if (c[0].network, c[0].start) == (network, start) and DATA[data](c[0])]


def markdown(steps: Sequence[Step], *, noc: bool = False) -> str:
    """Return the tables: means over modalities of all, seen and new data sets; modalities; seconds of a click.

    Args:
        steps: of all networks.
        noc: whether objects were clicked on until they reached 90.
    """
    curves = objects(steps)
    runs = list(dict.fromkeys((step.network, step.start) for step in steps))
    columns = _columns(NOC_CAP if noc else CLICKS, noc=noc)
    parts = [
        f"DSC and NSD in percent after {', '.join(map(str, SHOWN))} clicks on the largest error. Objects start with a"
        " box, or with a click at their centre, which NoC (the number of clicks until DSC reaches 85 or 90) counts;"
        f" AUC is the area under the score over 0 to {CLICKS} clicks, divided by {CLICKS}. Means inside each modality"
        " (over the masks of a slice, the slices of a case, the cases), then over modalities."
    ]
    for data in DATA:
        lines = [line for n, s in runs for line in _lines(chosen(curves, n, s, data), columns) if line[0] == _MEAN]
        if lines:
            parts.append(f"## {data.capitalize()}\n\n{_table(['network', 'start', *_head(columns)], _strip(lines))}")
    lines = [line for n, s in runs for line in _lines(chosen(curves, n, s), columns) if line[0] != _MEAN]
    lines.sort(key=lambda line: MODALITIES.index(line[0]))
    parts.append(f"## By modality\n\n{_table(['modality', 'network', 'start', *_head(columns)], lines)}")
    parts.append(f"## Seconds of a click\n\n{_seconds(steps)}")
    return "\n\n".join(parts) + "\n"


def _columns(cap: int, *, noc: bool) -> dict[str, Callable[[Sequence[Step]], float]]:
    columns: dict[str, Callable[[Sequence[Step]], float]] = {}
    for metric in ("dsc", "nsd"):
        for k in SHOWN:
            columns[f"{metric.upper()} {k}"] = partial(_after, metric=metric, clicks=k)
        columns[f"{metric.upper()} AUC"] = partial(_area, metric=metric)
    for target in TARGETS:
        columns[f"NoC@{target}" + ("" if noc else f" (cap {cap})")] = partial(_noc, target=target, cap=cap)
    return columns


def _head(columns: Iterable[str]) -> list[str]:
    return ["cases", "objects", *columns]


def _strip(lines: Iterable[Sequence[str]]) -> list[Sequence[str]]:
    return [line[1:] for line in lines]


def _after(curve: Sequence[Step], *, metric: str, clicks: int) -> float:
    return getattr(curve[clicks], metric)


def _area(curve: Sequence[Step], *, metric: str) -> float:
    return area([getattr(step, metric) for step in curve])


def _noc(curve: Sequence[Step], *, target: float, cap: int) -> float:
    return number_of_clicks([step.dsc for step in curve], target, start=curve[0].start, cap=cap)


def _lines(curves: Sequence[Sequence[Step]], columns: dict[str, Callable[[Sequence[Step]], float]]) -> list[list[str]]:
    """Return a line for each modality and one of their mean: modality, network, start, counts, values."""
    if not curves:
        return []
    means = [modality_means(curves, value) for value in columns.values()]
    lines = []
    for name in (*means[0], _MEAN):
        own = [curve for curve in curves if name in (curve[0].modality, _MEAN)]
        values = [mean[name] if name in mean else float(np.mean(list(mean.values()))) for mean in means]
        counts = len({curve[0].case for curve in own}), len(own)
        lines.append([name, curves[0][0].network, curves[0][0].start, *map(str, counts), *(f"{v:.2f}" for v in values)])
    return lines


def _seconds(steps: Iterable[Step]) -> str:
    """Return a table of the seconds of clicks: all steps but boxes, and but the first visit of a slice."""
    taken: dict[str, list[float]] = defaultdict(list)
    for step in steps:
        if step.seconds is not None and (step.clicks or step.start == CLICK):
            taken[step.network].append(step.seconds)
    lines = [
        [name, str(len(values)), f"{np.median(values):.3f}", f"{np.percentile(values, 95):.3f}"]
        for name, values in taken.items()
    ]
    return _table(["network", "clicks", "median", "95th percentile"], lines)


def _table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    head = list(head)
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *lines))
