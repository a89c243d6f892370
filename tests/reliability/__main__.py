"""Long tests of faults and abuse: ``python -m tests.reliability --out DIR [--parts fuzz,faults] [--scale 0.1]``."""

from __future__ import annotations

import pkgutil
import sys
import time
import traceback
from importlib.util import find_spec
from pathlib import Path

import fire

from custom.errors import InputError
from tests.benchmarks.tables import names
from tests.reliability.report import PartReport, write_report

#: Part -> its function, ``run_part(out: Path, *, scale: float) -> PartReport``.
PARTS = {
    part: f"tests.reliability.{part}:run_part"
    for part in ("fuzz", "security", "faults", "determinism", "soak", "numerics")
}


def main(*, out: str, parts: str | tuple[str, ...] | None = None, scale: float = 1.0) -> None:
    """Run parts one after the other, print what each found, and write report.md and report.json into ``out``.

    The exit code is 1 if a part found a failure.

    Args:
        out: folder for the report; each part may use a folder of its own name below it.
        parts: names of parts, separated by commas; all by default.
        scale: factor on the number of trials; 1 takes hours.

    Raises:
        InputError: an unknown part.
    """
    chosen = [part for part in PARTS if find_spec(_module(part))] if parts is None else names(parts)
    for part in chosen:
        if part not in PARTS or find_spec(_module(part)) is None:
            raise InputError("arguments", "parts", repr(part), ", ".join(PARTS))
    reports: list[PartReport] = []
    for part in chosen:
        reports.append(_run(part, Path(out), scale))
        text = write_report(reports, Path(out))  # after each part: a long run may be stopped
    print(text)
    if any(report.failures for report in reports):
        sys.exit(1)


def _module(part: str) -> str:
    return PARTS[part].partition(":")[0]


def _run(part: str, out: Path, scale: float) -> PartReport:
    start = time.perf_counter()
    try:
        return pkgutil.resolve_name(PARTS[part])(out / part, scale=scale)
    except Exception:  # the other parts can still run
        return PartReport(part, [], [traceback.format_exc()], time.perf_counter() - start)


if __name__ == "__main__":
    fire.Fire(main)
