"""The command line: ``python -m data_prep VERB --src ... --out ...``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import fire

from custom.errors import InputError
from data_prep import DEFAULT_DEMO_DIR
from data_prep.intensity import parse_window
from data_prep.pipeline import prepare
from data_prep.readers import READERS, Reader
from data_prep.writer import Options

_DEFAULTS: dict[str, Any] = {"workers": None, "ct_window": "soft_tissue", "components": True, "min_size": 16}


class Commands:
    """Prepare data for training: arrays and one dataset.json in the folder --out.

    Every verb also takes:
      --workers N        processes (default: the CPU cores, at most 8); 1 runs serially
      --ct_window W      soft_tissue (default), lung, bone, brain, or "level,width" in HU; for CT that is not uint8
      --components B     True (default): masks of pictures are split into 8-connected components, except instance
                         maps; volumes are never split
      --min_size N       drop masks of fewer pixels or voxels (default 16)
    """

    def demo(self, out: str = str(DEFAULT_DEMO_DIR), **options: Any) -> None:
        """Make a small phantom set of all eleven modalities, the same on every run."""
        _run(READERS["demo"](), _folder("out", out), options)

    def manifest(self, src: str | None = None, out: str | None = None, **options: Any) -> None:
        """Prepare every <Modality>/manifest.jsonl below --src (pictures and NIfTI)."""
        reader = READERS["manifest"](_folder("src", src))
        _run(reader, _folder("out", out), options)

    def npz(self, src: str | None = None, out: str | None = None, val_fraction: float = 0.1, **options: Any) -> None:
        """Prepare {2D|3D}_{Modality}_*.npz files below --src; --val_fraction of the cases are for validation."""
        reader = READERS["npz"](_folder("src", src), val_fraction=val_fraction)
        _run(reader, _folder("out", out), options)


def main() -> None:
    """Run the command line; bad input is one line on standard error and exit code 1."""
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):  # a verb that takes any option would take --help for one
        arguments = [a for a in arguments if a not in ("-h", "--help", "--")] + ["--", "--help"]
    try:
        if arguments and arguments[0] not in READERS and not arguments[0].startswith("-"):
            raise InputError("arguments", "verb", repr(arguments[0]), ", ".join(READERS))
        fire.Fire(Commands(), arguments, name="python -m data_prep")
    except (InputError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)


def _run(reader: Reader, out: str | Path, arguments: dict[str, Any]) -> None:
    options, workers = _options(arguments)
    report = prepare(reader, out, options=options, workers=workers)
    for line in report.left_out:
        print(f"left out: {line}")
    for line in report.skipped:
        print(f"skipped: {line}")
    cases = len(report.training) + len(report.validation)
    if not cases:
        raise InputError(out, "cases", "none that could be prepared", "at least one usable case")
    print(report.table())
    print(f"{cases} cases in {report.seconds:.1f} s, {report.size / 1e6:.1f} MB written to {out}")
    if report.skipped:
        print(f"{len(report.skipped)} cases skipped")
        sys.exit(1)


def _options(arguments: dict[str, Any]) -> tuple[Options, int]:
    for key in arguments:
        if key not in _DEFAULTS:
            allowed = ", ".join(f"--{name}" for name in _DEFAULTS)
            raise InputError("arguments", f"--{key}", "an unknown option", f"--src, --out, --val_fraction, {allowed}")
    values = _DEFAULTS | arguments
    workers = min(os.cpu_count() or 1, 8) if values["workers"] is None else _whole("workers", values["workers"], 1)
    if not isinstance(values["components"], bool):
        raise InputError("arguments", "components", repr(values["components"]), "True, False")
    window = parse_window(values["ct_window"])
    min_size = _whole("min_size", values["min_size"], 1)
    return Options(window=window, components=values["components"], min_size=min_size), workers


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError("arguments", name, repr(value), f"a whole number of at least {least}")
    return value


def _folder(name: str, value: Any) -> Path:
    if value is None or isinstance(value, bool):
        raise InputError("arguments", name, "nothing", f"--{name} FOLDER")
    return Path(str(value))  # a folder named 2024 arrives as a number
