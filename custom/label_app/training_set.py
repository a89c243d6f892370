"""From saved labels to a prepared data set, by ``data_prep``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from custom.errors import InputError

_NAME = "studies"
_EVERY = 5  # one image in 5 is for validation


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """An image with its saved label."""

    name: str
    image: Path
    label: Path
    modality: str


def prepare_labels(pairs: Sequence[Labelled], folder: Path) -> str:
    """Prepare labelled images for training, in ``folder/prepared``; unchanged images are kept from the last time.

    One image in five, at least one, is for validation. A single image is used for both, so one saved label is enough.

    Returns:
        A table of what was prepared.

    Raises:
        InputError: no labels, or none that can be used.
    """
    from data_prep.pipeline import prepare
    from data_prep.readers.manifest import ManifestReader
    from data_prep.splits import WARN, SplitRule

    if not pairs:
        raise InputError("datastore", "labels", "none", "at least one image with a saved (final) label")
    write_manifests(pairs, folder / "source")
    reader, splits = ManifestReader(folder / "source"), SplitRule(leakage=WARN)
    report = prepare(reader, folder / "prepared", splits=splits, progress=False)
    problems = [*report.skipped, *report.left_out]
    if not report.training or not report.validation:
        raise InputError("datastore", "labels", "; ".join(problems) or "nothing to learn from", "usable labels")
    return "\n".join([*(f"left out: {line}" for line in problems), report.table()])


def write_manifests(pairs: Sequence[Labelled], folder: Path) -> None:
    """Write ``<modality>/manifest.jsonl`` as ``data_prep manifest`` reads it."""
    for old in folder.glob("*/manifest.jsonl"):
        old.unlink()
    lines: dict[str, list[str]] = {}
    for n, pair in enumerate(sorted(pairs, key=lambda pair: pair.name)):
        splits = ("train", "val") if len(pairs) == 1 else ("val",) if n % _EVERY == 0 else ("train",)
        for split in splits:
            line = {
                "image": str(pair.image.resolve()),
                "label": str(pair.label.resolve()),
                "modality": pair.modality,
                "dataset": _NAME,
                "split": split,
                "case": pair.name if len(splits) == 1 else f"{pair.name}_{split}",
                "labels": {"*": "object"},
            }
            lines.setdefault(pair.modality, []).append(json.dumps(line, ensure_ascii=False))
    for modality, entries in lines.items():
        (folder / modality).mkdir(parents=True, exist_ok=True)
        (folder / modality / "manifest.jsonl").write_text("\n".join(entries) + "\n", encoding="utf-8")
