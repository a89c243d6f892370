"""Dice by the size of the objects: ``python -m custom.report.sizes EVAL NAME=EVAL ... --out DIR``.

EVAL is the output folder of an evaluation with ``--mask_report True``.
"""

from __future__ import annotations

from pathlib import Path

from custom.command_line import run
from custom.errors import InputError
from custom.report.masks import ALL, Masks, read_masks
from custom.report.rows import write_rows

#: Ends of the classes of size: the longer side of the object's box as a share of the image's.
EDGES = (0.0, 0.02, 0.04, 0.08, 0.16, 0.32, 1.0)
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
    written = [[*row[:5], *(f"{value:.2f}" for value in row[5:])] for row in table]
    write_rows(Path(str(out)) / "sizes.csv", COLUMNS, written)
    print(f"{'run':<20}{'size':>16}{'masks':>8}{'DSC':>8}{'below 50':>10}")
    for name, modality, low, high, count, dice, low_share in table:
        if modality == ALL:
            print(f"{name:<20}{f'{low:.0%} to {high:.0%}':>16}{count:>8}{dice:>8.1f}{low_share:>9.1f}%")


def _read(runs: tuple[str, ...]) -> dict[str, Masks]:
    named = {}
    for text in map(str, runs):
        name, equals, folder = text.partition("=")
        name, folder = (name, folder) if equals else (Path(text).resolve().name, text)
        if name in named:
            raise InputError("arguments", "runs", f"{name!r} twice", "each name once")
        named[name] = read_masks(Path(folder))
    if not named:
        raise InputError("arguments", "runs", "none", "folders of evaluations, each FOLDER or NAME=FOLDER")
    return named


def _rows(masks: Masks) -> list[tuple[str, float, float, int, float, float]]:
    """Return the classes of each modality, then those of all masks."""
    parts = {**masks.by_modality(), ALL: masks}
    return [(name, *row) for name, part in parts.items() for row in by_size(part)]


def main() -> None:
    """Run the command line."""
    run(sizes, name="python -m custom.report.sizes")


if __name__ == "__main__":
    main()
