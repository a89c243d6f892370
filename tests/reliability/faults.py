"""Kills, full disks, read-only folders, slow and vanishing files in every command; then the same command again.

A command runs in its own process with one fault: at its n-th change of the output folder, or at its n-th read of an
input. What it left is checked, the fault is removed, and the same command must then end with exactly the files of an
undisturbed run.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from tests.reliability.commands import COMMANDS, Command
from tests.reliability.report import PartReport

KILL, TERMINATE, FULL, CUT, READ_ONLY, VANISH, SLOW = FAULTS = (
    "SIGKILL",
    "SIGTERM",
    "disk full",
    "file cut off by a full disk",
    "read-only output",
    "vanishing input",
    "slow input",
)
_WRITING = ("w", "a", "x", "r+")
_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
_DELAY = 0.05  # seconds for each input that is opened
_REFUSALS = ("error: ", "failed: ", "skipped: ")  # how the commands start the line with the error
_COUNTS = "changes, openings, readings:"


@dataclass(frozen=True)
class Fault:
    """One of ``FAULTS``.

    Attributes:
        kind: one of ``FAULTS``.
        at: number of the change, for ``FULL`` of the first file that cannot be opened for writing, for ``VANISH``
            of the read; for ``CUT`` the largest size of a file in bytes.
    """

    kind: str
    at: int = 1


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (minus the signal), its output, and counts of its actions.

    Opening a file for writing counts as a change of the output folder; opening an input counts as a read.
    """

    code: int
    reported: str
    changes: int
    openings: int
    readings: int


class Processes:
    """Starts commands in processes with everything imported."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.reliability.imports"])

    def run(self, command: Command, inputs: Path, out: Path, fault: Fault | None = None) -> Ended:
        """Run a command to its end."""
        reported, said = self._context.Pipe(duplex=False)  # not a file, which a full disk would cut off too
        process = self._context.Process(target=_child, args=(command, inputs, out, fault, said))
        process.start()
        said.close()
        with reported, open(reported.fileno(), "rb", closefd=False) as stream:
            text = stream.read().decode(errors="replace")
        process.join()
        text, mark, counts = text.partition(_COUNTS)
        return Ended(process.exitcode, text, *(map(int, counts.split()[:3]) if mark else (0, 0, 0)))


def _child(command: Command, inputs: Path, out: Path, fault: Fault | None, said: Connection) -> None:
    for stream in (1, 2):
        os.dup2(said.fileno(), stream)
    sys.stdout = sys.stderr = open(2, "w", buffering=1, closefd=False)
    hook = _Hook(str(inputs), str(out), fault or Fault(""))
    sys.addaudithook(hook)
    if hook.fault.kind == CUT:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hook.fault.at, hook.fault.at))
    code = 0
    try:
        command.run(inputs, out)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int | None) else 1
        if isinstance(stop.code, str):
            print(stop.code)
    except Exception:
        code = 1
        sys.excepthook(*sys.exc_info())
    print(_COUNTS, hook.changes, hook.openings, hook.readings)
    sys.exit(code)


class _Hook:
    """Counts what a process does with the two folders, and triggers the fault."""

    def __init__(self, inputs: str, out: str, fault: Fault) -> None:
        folder, name = os.path.split(out)
        self.inputs, self.fault = inputs, fault
        self.places = (out, os.path.join(folder, f".{name}."))  # a folder is prepared beside its final place
        self.changes = self.openings = self.readings = 0

    def __call__(self, event: str, arguments: tuple) -> None:
        if event != "open" and event not in _CHANGES:
            return
        path, fault = str(arguments[0]), self.fault
        writes = event != "open" or _writes(arguments)
        if path.startswith(self.places) and writes:
            self.changes += 1
            self.openings += event == "open"
            if fault.kind in (KILL, TERMINATE) and self.changes == fault.at:
                os.kill(os.getpid(), signal.SIGKILL if fault.kind == KILL else signal.SIGTERM)
            if fault.kind == FULL and event == "open" and self.openings >= fault.at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            if fault.kind == READ_ONLY:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        elif event == "open" and path.startswith(self.inputs) and os.path.isfile(path):
            self.readings += 1
            if fault.kind == SLOW:
                time.sleep(_DELAY)
            if fault.kind == VANISH and self.readings == fault.at:
                os.remove(path)


def _writes(arguments: tuple) -> bool:
    _, mode, flags = arguments
    if isinstance(mode, str):
        return any(mark in mode for mark in _WRITING)
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


class Trials:
    """Tries faults on one command.

    Args:
        command: the command.
        folder: a folder for its files, created here.
        processes: the processes it runs in.

    Attributes:
        undisturbed: how it ended without a fault.
    """

    def __init__(self, command: Command, folder: Path, processes: Processes) -> None:
        self.command, self.processes, self.folder = command, processes, folder
        self.inputs, self.kept = folder / "in", folder / "kept"
        folder.mkdir(parents=True)
        command.fill(self.kept)
        self._restore()
        out = folder / "undisturbed"
        self.undisturbed = processes.run(command, self.inputs, out)
        if self.undisturbed.code:
            raise RuntimeError(f"{command.name} without a fault: {self.undisturbed.reported}")
        self.wanted = command.contents(out)
        self.largest = max(path.stat().st_size for path in out.rglob("*") if path.is_file())
        self._number = 0

    def places(self, kind: str, count: int) -> list[Fault]:
        """Return up to ``count`` faults of a kind, spread from the first place where it can happen to the last."""
        last = {
            KILL: self.undisturbed.changes,
            TERMINATE: self.undisturbed.changes,
            FULL: self.undisturbed.openings,
            VANISH: self.undisturbed.readings,
            CUT: self.largest - 1,
        }.get(kind, 1)
        spread = (np.arange(count) + 0.5) / count if count < 3 else np.linspace(0, 1, count)
        return [Fault(kind, int(place)) for place in np.unique(np.rint(1 + spread * (last - 1)))]

    def run(self, fault: Fault) -> list[str]:
        """Run the command with a fault and then without; return a line for each problem."""
        self._number += 1
        out = self.folder / f"out{self._number}"
        self._restore()
        ended = self.processes.run(self.command, self.inputs, out, fault)
        found = list(self._after(fault, ended, out))
        self._restore()
        again = self.processes.run(self.command, self.inputs, out)
        if again.code:
            found.append(f"the same command then ends with code {again.code}: {_last(again.reported)}")
        found += [f"then {line}" for line in _differences(self.command.contents(out), self.wanted)]
        found += [f"then {line}" for line in _left_over(out)]
        shutil.rmtree(out, ignore_errors=True)
        return [f"{self.command.name}, {fault.kind} at {fault.at}: {line}" for line in found]

    def _after(self, fault: Fault, ended: Ended, out: Path) -> Iterable[str]:
        """Yield the problems right after the fault."""
        codes = {
            KILL: (-signal.SIGKILL,),
            TERMINATE: (128 + signal.SIGTERM, 0),
            SLOW: (0,),
            VANISH: (0, 1),  # files read before are not missed
        }.get(fault.kind, (1,))
        if ended.code not in codes:
            yield f"code {ended.code}, not {codes[0]}: {_last(ended.reported)}"
        if "Traceback" in ended.reported:
            yield f"a traceback: {_last(ended.reported)}"
        if ended.code == 1 and not any(line.startswith(_REFUSALS) for line in ended.reported.splitlines()):
            yield f"not reported in one line: {_last(ended.reported)}"
        if fault.kind != KILL:
            yield from _left_over(out)
            whole = self.command.contents(out)
            for name in set(whole) & set(self.wanted):
                if whole[name] != self.wanted[name] and name not in self.command.lists:
                    yield f"{name} is not as it will be"

    def _restore(self) -> None:
        """Restore the inputs, with their times."""
        if self.inputs.exists():
            shutil.rmtree(self.inputs)
        shutil.copytree(self.kept, self.inputs)


def _differences(found: dict[str, object], wanted: dict[str, object]) -> Iterable[str]:
    for name in sorted(found.keys() | wanted.keys()):
        if name not in found or name not in wanted:
            yield f"{name} is {'missing' if name in wanted else 'too many'}"
        elif found[name] != wanted[name]:
            yield f"{name} differs"


def _left_over(out: Path) -> Iterable[str]:
    beside = [path for path in out.parent.glob(f".{out.name}.*")]
    for path in (*out.rglob(".*"), *beside):
        yield f"{path.name} is left"


def _last(reported: str) -> str:
    lines = reported.strip().splitlines()
    return lines[-1][:300] if lines else "nothing said"


def try_faults(
    names: Sequence[str], folder: Path, *, count: int, kinds: Sequence[str] = FAULTS, report: Callable = print
) -> tuple[list[dict[str, object]], list[str]]:
    """Try the kinds of faults on commands, each at up to ``count`` places.

    Returns:
        A row for each command, and a line for each problem.
    """
    processes, rows, failures = Processes(), [], []
    for name in names:
        start, trials = time.perf_counter(), Trials(COMMANDS[name], folder / name, processes)
        row: dict[str, object] = {"command": name}
        for kind in kinds:
            faults = trials.places(kind, count)
            found = [line for fault in faults for line in trials.run(fault)]
            row[kind] = f"{len(faults)} tried, {len(found)} wrong" if found else len(faults)
            failures += found
        rows.append(row | {"seconds": time.perf_counter() - start})
        report(row)
    return rows, failures


def run_part(out: Path, *, scale: float) -> PartReport:
    """Try every fault on every command, at up to 20 places each (times ``scale``)."""
    shutil.rmtree(out, ignore_errors=True)  # of an earlier run
    start = time.perf_counter()
    rows, failures = try_faults(list(COMMANDS), out, count=max(1, round(20 * scale)), report=partial(print, flush=True))
    return PartReport("faults", rows, failures, time.perf_counter() - start)
