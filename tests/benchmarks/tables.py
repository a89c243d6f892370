"""The figures of a benchmark as Markdown for people and CSV for programs."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

Table = tuple[Sequence[str], Sequence[Sequence[str]]]  # header and rows


def names(given: str | Sequence[str]) -> list[str]:
    """Return the parts of a text with commas; fire may already have made a tuple of it."""
    return [part.strip() for part in (given.split(",") if isinstance(given, str) else map(str, given))]


def write_tables(folder: Path, name: str, tables: Mapping[str, Table]) -> str:
    """Write NAME.md and NAME.csv (title, then the row) and return the Markdown.

    Example:
        >>> import tempfile
        >>> print(write_tables(Path(tempfile.mkdtemp()), "t", {"Times": (["case", "s"], [["2D", "0.5"]])}))
        Times
        <BLANKLINE>
        | case | s |
        | --- | --: |
        | 2D | 0.5 |
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n\n".join(f"{title}\n\n{markdown(header, rows)}" for title, (header, rows) in tables.items())
    (folder / f"{name}.md").write_text(text + "\n", encoding="utf-8")
    with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
        for title, (header, rows) in tables.items():
            csv.writer(file).writerows([title, *row] for row in (header, *rows))
    return text


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    ruler = ["---", *["--:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ruler, *rows))
