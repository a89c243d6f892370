"""The findings of the parts of the suite, as ``report.md`` for people and ``report.json`` for programs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from custom.atomic_write import write_whole
from tests.benchmarks.tables import markdown


@dataclass(frozen=True)
class PartReport:
    """The findings of one part.

    Attributes:
        name: name of the part.
        rows: lines of a table, column -> value; rows with other columns form a separate table.
        failures: one line for each problem; empty means that the part passed.
        seconds: wall time.
    """

    name: str
    rows: list[dict[str, Any]]
    failures: list[str]
    seconds: float


def write_report(parts: Sequence[PartReport], folder: Path) -> str:
    """Write ``report.md`` and ``report.json`` into a folder, created if missing; return the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    text = "\n\n".join([machine, *map(_section, parts)]) + "\n"
    content = json.dumps({"machine": machine, "parts": [asdict(part) for part in parts]}, indent=2) + "\n"
    write_whole(folder / "report.md", lambda file: file.write(text.encode()))
    write_whole(folder / "report.json", lambda file: file.write(content.encode()))
    return text


def _section(part: PartReport) -> str:
    found = f"{len(part.failures)} failures" if part.failures else "passed"
    blocks = [f"## {part.name}: {found}, {part.seconds:.0f} s"]
    for columns, rows in groupby(part.rows, key=tuple):
        blocks.append(markdown(columns, [[_cell(value) for value in row.values()] for row in rows]))
    if part.failures:
        blocks.append("\n".join(f"- {' '.join(line.split())}" for line in part.failures))
    return "\n\n".join(blocks)


def _cell(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return " ".join(text.split()).replace("|", "\\|")
