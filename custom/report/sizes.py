"""Dice by the size of the objects: ``python -m custom.report.sizes EVAL NAME=EVAL ... --out DIR``.

EVAL is the output folder of an evaluation with ``--mask_report True``.
"""

from __future__ import annotations

import csv
from io import StringIO
from pathlib import Path

import fire
import numpy as np

from custom.command_line import told_in_one_line
from custom.errors import InputError
from custom.files import write_whole
from custom.modalities import MODALITIES
from custom.report.masks import Masks, read_masks

#: Ends of the classes of size: the longer side of the object's box as a share of the image's.
EDGES = (0.0, 0.02, 0.04, 0.08, 0.16, 0.32, 1.0)
ALL = "all"
COLUMNS = ("run", "modality", "from", "to", "masks", "dsc", "below_50")


def by_size(masks: Masks) -> list[tuple[float, float, int, float, float]]:
    """Sort masks into the classes of size; a class without masks is left out.

    Returns:
        For each class its ends (the lower one is outside of it), the number of its masks, the mean Dice over them and
        the share of those whose Dice is below one half, both in percent.
    """
    rows = []
    for low, high in zip(EDGES, EDGES[1:], strict=False):
        dice = masks.where((masks.extent > low) & (masks.extent <= high)).dice
        if len(dice):
            rows.append((low, high, len(dice), 100 * float(dice.mean()), 100 * float((dice < 0.5).mean())))
    return rows


def sizes(*runs: str, out: str = "sizes") -> None:
    """Write ``sizes.csv``, by run, modality and size, and show the rows of all modalities together.

    Args:
        runs: output folders of evaluations with ``--mask_report True``; NAME=FOLDER names one.
        out: folder for the file.

    Raises:
        InputError: no run, two of one name, or a folder without a readable ``masks.csv``.
    """
    table = [[name, *row] for name, masks in _read(runs).items() for row in _rows(masks)]
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([*row[:5], *(f"{value:.2f}" for value in row[5:])] for row in table)
    place = Path(str(out))
    place.mkdir(parents=True, exist_ok=True)
    write_whole(place / "sizes.csv", lambda file: file.write(text.getvalue().encode()))
    print(f"{'run':<20}{'size':>16}{'masks':>8}{'DSC':>8}{'below 50':>10}")
    for name, modality, low, high, count, dice, low_share in table:
        if modality == ALL:
            print(f"{name:<20}{f'{low:.0%} to {high:.0%}':>16}{count:>8}{dice:>8.1f}{low_share:>9.1f}%")


def _read(runs: tuple[str, ...]) -> dict[str, Masks]:
    allowed = "folders of evaluations with --mask_report True, each FOLDER or NAME=FOLDER"
    named = {}
    for run in map(str, runs):
        name, equals, folder = run.partition("=")
        name, folder = (name, folder) if equals else (Path(run).resolve().name, run)
        if name in named:
            raise InputError("arguments", "runs", f"{name!r} twice", "each name once")
        named[name] = read_masks(Path(folder))
    if not named:
        raise InputError("arguments", "runs", "none", allowed)
    return named


def _rows(masks: Masks) -> list[tuple[str, float, float, int, float, float]]:
    """Return the classes of each modality, then those of all masks."""
    parts = {MODALITIES[m]: masks.of(m) for m in np.unique(masks.modality)}
    return [(name, *row) for name, part in {**parts, ALL: masks}.items() for row in by_size(part)]


def main() -> None:
    """Run the command line; bad input is told in one line."""
    with told_in_one_line():
        fire.Fire(sizes, name="python -m custom.report.sizes")


if __name__ == "__main__":
    main()
