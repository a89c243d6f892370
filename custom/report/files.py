"""Write a comparison's files."""

from __future__ import annotations

from pathlib import Path

from custom.atomic_write import write_whole
from custom.report.comparison import Comparison
from custom.report.figure import draw
from custom.report.tables import csv_table, markdown_tables


def write_report(comparison: Comparison, folder: Path) -> str:
    """Write ``scores.csv``, ``report.md`` and ``report.png`` into a folder, made if missing; return the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    text = markdown_tables(comparison)
    write_whole(folder / "scores.csv", lambda file: file.write(csv_table(comparison).encode()))
    write_whole(folder / "report.md", lambda file: file.write(text.encode()))
    write_whole(folder / "report.png", lambda file: file.write(draw(comparison)))
    return text
