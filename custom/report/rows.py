"""Read the CSV files that evaluations and reports leave, and write such files."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path

from custom.atomic_write import write_whole
from custom.errors import InputError


def read_rows(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Return the lines of a table as (number of the line in the file, value by column).

    Args:
        path: the file.
        columns: columns it must have; others are kept.

    Raises:
        InputError: the file cannot be read as CSV, or a column is missing.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            missing = [column for column in columns if column not in (rows.fieldnames or ())]
            if missing:
                raise InputError(path, "columns", f"no {', '.join(missing)}", ", ".join(columns))
            return [(rows.line_num, row) for row in rows]
    except OSError as error:
        raise InputError(path, "file", error.strerror, "a CSV file with " + ", ".join(columns)) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(path, "file", error, "a CSV file in UTF-8") from error


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table whole, its folder made if missing."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda file: file.write(text.getvalue().encode()))
