"""Dice and surface Dice by modality: an ignite metric, and a handler that reports it in files and as a table."""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch.distributed as dist
from ignite.engine import Engine, Events
from ignite.exceptions import NotComputableError
from ignite.metrics import Metric
from monai.apps.utils import get_logger

from custom.atomic_write import write_whole
from custom.errors import InputError
from custom.metrics import dice_score, surface_dice
from custom.modalities import MODALITIES, canonical_modality

METRICS = ("dsc", "nsd")


@dataclass(frozen=True)
class CaseScore:
    """Score of one case: the mean over its slices of the mean over a slice's masks, in percent."""

    case: str
    modality: str
    n_masks: int
    score: float


class ModalityMetric(Metric):
    """Mean over modalities of the mean over a modality's cases, in percent (the paper's averages).

    An update takes a list of items, each a dict with "case" (str), "modality" (str), "dimension" (2 or 3), "spacing"
    ((sz, sy, sx) in mm, or ``None``), "pred" and "label" (bool, (N, H, W) or (N, D, H, W)) and, if a volume comes
    slice by slice, "slice" (int). The score of an item is the mean over its N masks; the items of a case are averaged
    to one value.

    The NSD tolerance is 2 pixels for two-dimensional data (and if the spacing is unknown) and 2 mm otherwise.

    Under ``torch.distributed`` the scores of all processes are gathered, so that all return the same value. Items are
    identified by (case, slice), or by their order within a process if "slice" is missing. Each counts once, e.g. when
    a sampler repeats some to fill the last batch. So the slices of a volume that is spread over processes need
    "slice".

    Standard deviations are population ones (ddof = 0): over the cases inside a modality, and over the modality means.

    Args:
        metric_fn: "dsc" (Dice) or "nsd" (surface Dice).
        output_transform: turns ``engine.state.output`` into the list of items.

    Raises:
        InputError: unknown ``metric_fn``; an item without a mask; a case with two modalities.
    """

    required_output_keys = None

    def __init__(self, *, metric_fn: str, output_transform: Callable[[Any], Any] = lambda output: output) -> None:
        if metric_fn not in METRICS:
            raise InputError("ModalityMetric", "metric_fn", repr(metric_fn), ", ".join(METRICS))
        self.metric_fn = metric_fn
        super().__init__(output_transform, skip_unrolling=True)

    def reset(self) -> None:
        """Forget all scores; called at the start of each epoch."""
        # (case, slice or None, order among the items of that case without slice) -> that item
        self._items: dict[tuple[str, int | None, int], CaseScore] = {}
        self._unnumbered: Counter[str] = Counter()
        self._cases: list[CaseScore] | None = None

    def update(self, output: Sequence[Mapping[str, Any]]) -> None:
        """Score a list of items as described for the class."""
        self._cases = None
        for item in output:
            case, number = str(item["case"]), item.get("slice")
            if not len(item["label"]):
                raise InputError(case, "label", f"shape {tuple(item['label'].shape)}", "at least one mask")
            scores = self._score(item)
            modality = canonical_modality(item["modality"], case)
            if number is None:
                key = (case, None, self._unnumbered[case])
                self._unnumbered[case] += 1
            else:
                key = (case, int(number), 0)
            self._items[key] = CaseScore(case, modality, len(scores), 100 * float(scores.mean()))

    def _score(self, item: Mapping[str, Any]) -> np.ndarray:
        pred, label = item["pred"], item["label"]
        if self.metric_fn == "dsc":
            return dice_score(pred, label)
        spacing = item.get("spacing") if int(item["dimension"]) == 3 else None
        if spacing is not None:
            spacing = [float(s) for s in spacing][-(pred.ndim - 1) :]  # (sz, sy, sx) -> (sy, sx) for N x H x W
        return surface_dice(pred, label, spacing=spacing)

    @property
    def per_case(self) -> list[CaseScore]:
        """The scores of all processes' cases, by modality (in the order of ``MODALITIES``), then by name.

        The first call after an update gathers them, so all processes must make it; ``compute`` does.
        """
        if self._cases is None:
            parts = [self._items]
            if idist.get_world_size() > 1:
                parts = [None] * idist.get_world_size()
                dist.all_gather_object(parts, self._items)
            # The lowest rank wins, so that every process keeps the same copy of a repeated item.
            items = {key: item for part in reversed(parts) for key, item in part.items()}
            grouped: dict[str, list[CaseScore]] = defaultdict(list)
            for key in sorted(items, key=lambda k: (k[0], -1 if k[1] is None else k[1], k[2])):
                grouped[key[0]].append(items[key])
            self._cases = sorted(map(_merge, grouped.values()), key=lambda c: (MODALITIES.index(c.modality), c.case))
        return self._cases

    def summary(self) -> dict[str, Any]:
        """Return {"per_modality": {name: {"n", "mean", "std"}}, "mean", "std"}; n in cases, the others in percent.

        Raises:
            NotComputableError: no item was given to any process.
        """
        scores: dict[str, list[float]] = defaultdict(list)
        for case in self.per_case:
            scores[case.modality].append(case.score)
        if not scores:
            raise NotComputableError("ModalityMetric needs at least one item before it can be computed")
        per_modality = {
            modality: {"n": len(values), "mean": float(np.mean(values)), "std": float(np.std(values))}
            for modality, values in scores.items()
        }
        means = [entry["mean"] for entry in per_modality.values()]
        return {"per_modality": per_modality, "mean": float(np.mean(means)), "std": float(np.std(means))}

    def compute(self) -> float:
        """Return the mean over modalities in percent, the same in all processes."""
        return self.summary()["mean"]

    def completed(self, engine: Engine, name: str) -> None:
        """Put the overall mean under ``name`` into ``engine.state.metrics``, and each modality's as e.g. "dsc_CT".

        Metrics complete before any MONAI handler runs, so a TensorBoardStatsHandler always sees them.
        """
        super().completed(engine, name)
        for modality, entry in self.summary()["per_modality"].items():
            engine.state.metrics[f"{self.metric_fn}_{modality}"] = entry["mean"]

    def attach(self, engine: Engine, name: str, *args: Any, **kwargs: Any) -> None:
        """Attach to an engine as any ignite metric, and let a ``ModalityReport`` on that engine find it."""
        super().attach(engine, name, *args, **kwargs)
        engine.state.modality_metrics = {**getattr(engine.state, "modality_metrics", {}), self.metric_fn: self}


class ModalityReport:
    """MONAI handler that reports the ``ModalityMetric`` objects of an evaluator at the end of each epoch.

    It writes two files, replacing those of an earlier epoch (never half written), and logs a table:

    - ``cases.csv``: case, modality, n_masks, dsc, nsd;
    - ``summary.json``: {"per_modality": {"CT": {"n", "dsc", "nsd", "dsc_std", "nsd_std"}, ...},
      "mean": {"dsc", "nsd", "dsc_std", "nsd_std"}}, modalities in the order of ``MODALITIES``.

    All values are in percent. A metric that is not attached is omitted. Only process 0 writes and logs.

    Args:
        output_dir: folder of the two files, created if missing.
        name: name of the logger.

    Raises:
        OSError: when the engine starts: the folder cannot be written.
    """

    def __init__(self, *, output_dir: str | os.PathLike[str], name: str = "ModalityReport") -> None:
        self.output_dir = Path(output_dir)
        self.logger = get_logger(name)

    def attach(self, engine: Engine) -> None:
        """Attach to an engine that has at least one ``ModalityMetric``.

        Raises:
            InputError: the engine has none.
        """
        if not getattr(engine.state, "modality_metrics", None):
            raise InputError("ModalityReport", "metrics of the engine", "no ModalityMetric", "at least one of dsc, nsd")
        engine.add_event_handler(Events.STARTED, self._started)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def _started(self, _: Engine) -> None:
        """Find out before the work, not after it, if its results cannot be written."""
        if idist.get_rank() == 0:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.output_dir):
                pass

    def __call__(self, engine: Engine) -> None:
        """Write the files and log the table."""
        metrics: dict[str, ModalityMetric] = {
            name: engine.state.modality_metrics[name] for name in METRICS if name in engine.state.modality_metrics
        }
        # Already gathered when the metrics completed, so process 0 alone may read them.
        if idist.get_rank() != 0:
            return
        summary = _summarise(metrics)
        write_whole(self.output_dir / "cases.csv", lambda file: file.write(_case_table(metrics).encode()))
        text = json.dumps(summary, indent=2) + "\n"
        write_whole(self.output_dir / "summary.json", lambda file: file.write(text.encode()))
        self.logger.info("Scores by modality (percent, mean ± std)\n%s", format_summary(summary))


def format_summary(summary: Mapping[str, Any]) -> str:
    """Return the content of a ``summary.json`` as an aligned plain table, one modality per line."""
    names = [name for name in METRICS if name in summary["mean"]]
    total = {"n": sum(entry["n"] for entry in summary["per_modality"].values()), **summary["mean"]}
    lines = [f"{'modality':<12}{'cases':>8}" + "".join(f"{name.upper():>18}" for name in names)]
    for modality, entry in (*summary["per_modality"].items(), ("mean", total)):
        values = "".join(f"{entry[name]:>9.2f} ± {entry[f'{name}_std']:>6.2f}" for name in names)
        lines.append(f"{modality:<12}{entry['n']:>8}{values}")
    return "\n".join(lines)


def _merge(items: list[CaseScore]) -> CaseScore:
    """Average the items of one case."""
    modalities = sorted({item.modality for item in items})
    if len(modalities) > 1:
        raise InputError(items[0].case, "modality", " and ".join(modalities), "one modality a case")
    score = float(np.mean([item.score for item in items]))
    return CaseScore(items[0].case, modalities[0], sum(item.n_masks for item in items), score)


def _summarise(metrics: Mapping[str, ModalityMetric]) -> dict[str, Any]:
    """Join the metrics' summaries into the content of ``summary.json``."""
    per_modality: dict[str, dict[str, float]] = defaultdict(dict)
    mean: dict[str, float] = {}
    for name, metric in metrics.items():
        summary = metric.summary()
        mean |= {name: summary["mean"], f"{name}_std": summary["std"]}
        for modality, entry in summary["per_modality"].items():
            per_modality[modality] |= {"n": entry["n"], name: entry["mean"], f"{name}_std": entry["std"]}
    return {"per_modality": dict(per_modality), "mean": mean}


def _case_table(metrics: Mapping[str, ModalityMetric]) -> str:
    """Return the content of ``cases.csv``; the metrics hold the same cases in the same order."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", "modality", "n_masks", *metrics])
    for row in zip(*(metric.per_case for metric in metrics.values()), strict=True):
        writer.writerow([row[0].case, row[0].modality, row[0].n_masks, *(f"{entry.score:.6f}" for entry in row)])
    return text.getvalue()
