"""Compare runs: ``python -m custom.report RUN... --reference RUN --out DIR``."""

from __future__ import annotations

from pathlib import Path

from custom.command_line import run
from custom.report import compare, parse_run, write_report


def report(*runs: str, reference: str | None = None, out: str = "report") -> None:
    """Write ``scores.csv``, ``report.md`` and ``report.png``, and show the tables.

    Args:
        runs: each a folder with the ``cases.csv`` of one run, or with folders seed_0, seed_1, ... of one experiment;
            NAME=FOLDER names it, NAME=FOLDER,FOLDER gives its seeds.
        reference: the run the others are tested against: the name or the folder of one of ``runs``, or one more.
        out: folder for the three files.

    Raises:
        InputError: a run cannot be read, or the runs have other cases.
    """
    read = {text: parse_run(text) for text in map(_text, runs)}
    compared, base = list(read.values()), None
    if reference is not None:
        base = _text(reference)
        if base not in (run.name for run in compared):
            if base not in read:
                read[base] = parse_run(base)
                compared.append(read[base])
            base = read[base].name
    print(write_report(compare(compared, base), Path(str(out))))


def main() -> None:
    """Run the command line."""
    run(report, name="python -m custom.report")


def _text(run: object) -> str:
    """Return a run as it was typed: fire makes a folder named 2024 a number, and A,B a tuple."""
    return ",".join(map(str, run)) if isinstance(run, tuple | list) else str(run)


if __name__ == "__main__":
    main()
