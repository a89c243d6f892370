"""Scores of checkpoints under looser boxes.

python -m custom.report.robustness CHECKPOINT NAME=CHECKPOINT ... --dataset_dir D --out DIR
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from custom.atomic_write import write_whole
from custom.bundle_run import BundleError, run_bundle
from custom.command_line import check_keys, run
from custom.errors import InputError
from custom.recipes import EVALUATE, TRAIN, read_object
from custom.report.checkpoints import named_checkpoints
from custom.report.robustness_figure import COLUMNS, draw
from custom.report.rows import write_rows
from custom.report.runs import METRICS

#: Outward shift of every side, in pixels of the 256 frame.
SHIFTS = (0, 5, 10, 20)
#: Relative enlargement of the tight box, in percent.
ENLARGEMENTS = (0, 10, 20, 30, 50)
SETTINGS_FILE, BOXES_FILE, SUMMARY_FILE = "settings.json", "boxes.json", "summary.json"
# Where a point is computed, not what; these may change when the command carries on.
_MACHINE_KEYS = ("device", "num_workers")
_OWN_KEYS = ("config_file", "checkpoint", "output_dir", "ckpt_dir")


@dataclass(frozen=True)
class Point:
    """One checkpoint with one way of making the boxes.

    Attributes:
        name: the checkpoint's name.
        checkpoint: its file.
        shift: outward shift of every side in pixels of the 256 frame.
        enlargement: relative enlargement of the tight box in percent.
    """

    name: str
    checkpoint: Path
    shift: int = 0
    enlargement: int = 0

    @property
    def title(self) -> str:
        """Name of the point's folder."""
        if self.enlargement:
            return f"enlarged_{self.enlargement}"
        return f"shifted_{self.shift}" if self.shift else "tight"


def points(name: str, checkpoint: Path) -> list[Point]:
    """Return the points of one checkpoint, each once: the tight box is the beginning of both curves."""
    shifted = [Point(name, checkpoint, shift=shift) for shift in SHIFTS]
    return shifted + [Point(name, checkpoint, enlargement=value) for value in ENLARGEMENTS if value]


def robustness(*checkpoints: str, dataset_dir: str, out: str = "robustness", **overrides: Any) -> None:
    """Evaluate each checkpoint on the validation part, its boxes loosened step by step.

    The boxes are the tight ones with every side moved outwards by exactly 0, 5, 10 and 20 pixels of the 256 frame, and
    the tight ones enlarged about their centre by exactly 10, 20, 30 and 50 %, kept inside the image. Every point is an
    evaluation by the bundle in ``OUT/<checkpoint>/<point>/``; those that are done are not repeated. It writes
    ``robustness.csv`` and ``robustness.png``: DSC and NSD, means over modalities.

    Args:
        checkpoints: each FILE or NAME=FILE, a FILE alone under its own name; FILE may be lite_medsam.
        dataset_dir: the prepared set.
        out: folder of all results.
        overrides: further keys of the configs, for instance --clip none --val_slices 1.

    Raises:
        InputError: no such checkpoint, two of one name, or a folder that holds a point of other settings.
    """
    check_keys(overrides, {"out"}.union(read_object(TRAIN), read_object(EVALUATE)) - set(_OWN_KEYS))
    named = named_checkpoints(checkpoints)
    folder = Path(str(out)).absolute()
    overrides = {"dataset_dir": str(Path(str(dataset_dir)).absolute()), **overrides}
    todo = [point for name, path in named.items() for point in points(name, path)]
    for point in todo:  # all of them, before the first hour is spent
        _check(point, folder, overrides)
    scores = {}
    for number, point in enumerate(todo, start=1):
        known = (folder / point.name / point.title / SUMMARY_FILE).is_file()
        if not known:
            _evaluate(point, folder / point.name / point.title, overrides)
        mean = read_object(folder / point.name / point.title / SUMMARY_FILE)["mean"]
        scores[point] = {metric: mean[metric] for metric in METRICS}
        text = ", ".join(f"{metric.upper()} {scores[point][metric]:.2f}" for metric in METRICS)
        print(f"[{number}/{len(todo)}] {point.name}, {point.title}: {text}{' (known)' if known else ''}", flush=True)
    rows = list(curves(scores))
    write_rows(folder / "robustness.csv", COLUMNS, ([row[column] for column in COLUMNS] for row in rows))
    image = draw(rows)
    write_whole(folder / "robustness.png", lambda file: file.write(image))


def curves(scores: Mapping[Point, Mapping[str, float]]) -> Iterator[dict[str, Any]]:
    """Yield the lines of ``robustness.csv``; the tight box begins both curves."""
    for name in dict.fromkeys(point.name for point in scores):
        own = {point: values for point, values in scores.items() if point.name == name}
        for boxes, attribute, other in (("shift", "shift", "enlargement"), ("enlargement", "enlargement", "shift")):
            for point, values in own.items():
                if not getattr(point, other):
                    rounded = {metric: round(value, 4) for metric, value in values.items()}
                    yield {"checkpoint": name, "boxes": boxes, "value": getattr(point, attribute), **rounded}


def boxes_config(point: Point) -> dict[str, Any]:
    """Return the config that puts a point's boxes in the place of the validation's random ones."""
    steps = read_object(TRAIN)["validate"]["preprocessing"]["transforms"]
    place = next(i for i, step in enumerate(steps) if step["_target_"] == "custom.transforms.RandBoxd")
    boxes = {"shift": point.shift, "scale": point.enlargement / 100}
    target = {"_target_": "custom.transforms.Boxd", "keys": steps[place]["keys"], **boxes}
    return {f"validate#preprocessing#transforms#{place}": target}


def _settings(point: Point, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the scores of a point depend on."""
    state = point.checkpoint.stat()
    kept = {key: str(value) for key, value in overrides.items() if key not in _MACHINE_KEYS}
    return {"checkpoint": str(point.checkpoint), "size": state.st_size, "changed": state.st_mtime_ns, **kept}


def _check(point: Point, folder: Path, overrides: Mapping[str, Any]) -> None:
    path, wanted = folder / point.name / point.title / SETTINGS_FILE, _settings(point, overrides)
    found = read_object(path) if path.is_file() else wanted
    for key in sorted(found.keys() | wanted.keys()):
        if found.get(key) != wanted.get(key):
            raise InputError(path.parent, key, wanted.get(key), f"{found.get(key)} as before, or another --out")


def _evaluate(point: Point, folder: Path, overrides: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in ((SETTINGS_FILE, _settings(point, overrides)), (BOXES_FILE, boxes_config(point))):
        text = json.dumps(content, indent=2) + "\n"
        write_whole(folder / name, lambda file, text=text: file.write(text.encode()))
    options = {"checkpoint": point.checkpoint, "output_dir": folder, **overrides}
    try:
        run_bundle("evaluating", [TRAIN, EVALUATE, folder / BOXES_FILE], options, log=folder / "eval.log")
    except BundleError as error:
        raise BundleError(f"{point.name}, {point.title}: {error}") from error


def main() -> None:
    """Run the command line."""
    run(robustness, name="python -m custom.report.robustness", errors=(BundleError,))


if __name__ == "__main__":
    main()
