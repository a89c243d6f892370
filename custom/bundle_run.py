"""Run the bundle's workflows from Python, as ``python -m monai.bundle run`` does."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from os import PathLike
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from custom.bundle_folder import BUNDLE
from custom.command_line import Terminated

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

COMMAND = (sys.executable, "-m", "monai.bundle", "run")


class BundleError(RuntimeError):
    """A workflow that ended with an error."""


def run_bundle(
    workflow: str, configs: Sequence[str | PathLike[str]], overrides: Mapping[str, Any], *, log: Path | None = None
) -> None:
    """Run a workflow in a process of its own, and wait for its end.

    Ctrl-C and SIGTERM reach it too: a training saves before it ends.

    Args:
        workflow: "training" or "evaluating".
        configs: config files; each changes those before it.
        overrides: config key -> value, over all of them, for instance {"epochs": 3, "lr_scheduler#factor": 0.8}.
        log: file to which the command and all that it prints are appended; its folder is made if missing. By default
            they are printed where this process prints.

    Raises:
        BundleError: the workflow ended with an error; the message has the last line of the log.
    """
    options = [text for key, value in overrides.items() for text in (f"--{key}", str(value))]
    command = [*COMMAND, workflow, "--config_file", repr([str(config) for config in configs]), *options]
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
    with nullcontext() if log is None else log.open("a", encoding="utf-8") as file:
        print(f"\n# {time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(command)}", file=file, flush=True)
        code = _wait(command, file)
    if code:
        reason = "" if log is None else f": {_last_line(log)} ({log})"
        raise BundleError(f"{workflow} ended with code {code}{reason}")


def read_config(configs: Sequence[str | PathLike[str]], overrides: Mapping[str, Any]) -> ConfigParser:
    """Return the configuration of a workflow in this process, to build parts of it; nothing runs.

    Args:
        configs: as in ``run_bundle``.
        overrides: as in ``run_bundle``.
    """
    from monai.bundle import ConfigParser  # takes seconds to import

    parser = ConfigParser()
    parser.read_config([str(config) for config in configs])
    parser.update({"bundle_root": str(BUNDLE), **overrides})
    return parser


def _wait(command: Sequence[str], output: IO[str] | None) -> int:
    with subprocess.Popen(command, stdout=output, stderr=None if output is None else subprocess.STDOUT) as process:
        try:
            return process.wait()
        except KeyboardInterrupt as stop:
            # Ctrl-C has reached it already, and a second signal would end it at once.
            if isinstance(stop, Terminated):
                process.terminate()
            process.wait()
            raise


def _last_line(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1].strip()
