"""Thousands of damaged files for every reader: each must be read, or refused by an ``InputError``, at small cost.

``python -m tests.reliability --parts fuzz`` runs the long part; ``python -m tests.reliability.fuzz TARGET SEED NUMBER``
writes the file of one execution into the current folder and reads it, to examine a failure.
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import math
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import fire

from custom.atomic_write import write_whole
from custom.errors import InputError
from tests.reliability.mutation import Mutate, mutate_bytes
from tests.reliability.report import PartReport

EXECUTIONS = 200_000  # of each target in the long part
SHARE = 10_000  # of them in one process
SECONDS, MEGABYTES = 5.0, 300  # limits of one execution: CPU time, and memory
_LIMITS = {
    "MCP_MEDSAM_MAX_BYTES": 2**26,
    "MCP_MEDSAM_MAX_PIXELS": 2**22,
    "MCP_MEDSAM_MAX_SLICES": 2**12,
    "MCP_MEDSAM_MAX_JSON_BYTES": 2**20,
    "MCP_MEDSAM_MAX_OUTLINE": 2**16,
}
_LONGEST_LINE = 12_000
_LOG = "crash.txt"
_ROOT = str(Path(__file__).resolve().parents[2])
_CONTEXT = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
_CONTEXT.set_forkserver_preload(["tests.reliability.targets", "tests.reliability.security"])


@dataclass(frozen=True)
class Target:
    """A reader for damaged files.

    Attributes:
        file: the file to damage, in its own folder.
        seeds: fills the folder with whatever else the reader needs, and returns valid contents of the file.
        read: reads the file; returns, or raises one of ``errors``.
        mutate: damages a valid content.
        errors: what ``read`` may raise.
        limits: environment variables of ``custom.limits``; lower than usual, so that accepted files are small.
    """

    file: str
    seeds: Callable[[Path], Sequence[bytes]]
    read: Callable[[Path], object]
    mutate: Mutate = mutate_bytes
    errors: tuple[type[Exception], ...] = (InputError,)
    limits: Mapping[str, int] = field(default_factory=_LIMITS.copy)


@dataclass(frozen=True)
class FuzzResult:
    """The result of the executions of one target.

    Attributes:
        executions: damaged files read.
        refused: those that raised an allowed error.
        accepted: those read without an error.
        failures: one line for each kind of wrong answer: another error, a crash, too much time or memory.
        slowest_s: CPU seconds of the slowest execution.
        peak_mb: MB of additional memory of the process.
    """

    executions: int
    refused: int
    accepted: int
    failures: list[str]
    slowest_s: float
    peak_mb: float


def run(name: str, executions: int, seed: int) -> FuzzResult:
    """Run executions of a target, by name, in separate processes; the same ones for the same seed."""
    from tests.reliability.targets import TARGETS

    return run_target(TARGETS[name], executions, seed)


def run_target(target: Target, executions: int, seed: int) -> FuzzResult:
    """Run executions of a target; a process that crashes or hangs is replaced by one that continues after the crash."""
    state = _CONTEXT.Array("d", len(_State.__annotations__), lock=False)
    failures: Counter[str] = Counter()
    first = 0
    while first < executions:
        with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
            failures.update(_run_process(target, Path(folder), range(first, executions), seed, state))
        first = int(_State(*state).number) + 1
    end = _State(*state)
    lines = [f"{line} ({count} times)" if count > 1 else line for line, count in failures.items()]
    return FuzzResult(executions, int(end.refused), int(end.accepted), lines, end.slowest, end.peak)


def run_part(out: Path, *, scale: float) -> PartReport:
    """Run the long part: ``scale`` * 200,000 executions of each target, spread over the CPU cores.

    Each finished share of a target is stored in ``out``, so that the same command continues after an interruption; any
    change of the code starts again.
    """
    from tests.reliability.targets import TARGETS

    start, executions = time.perf_counter(), max(1, round(EXECUTIONS * scale))
    shares = [(name, min(SHARE, executions - n), n // SHARE) for n in range(0, executions, SHARE) for name in TARGETS]
    folder = out / _programs()
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda share: _kept_share(folder, *share), shares))
    rows, failures = [], []
    for name in TARGETS:
        own = [result for (other, *_), result in zip(shares, results, strict=True) if other == name]
        found = [f"{name}: {line}" for result in own for line in result.failures]
        failures += found
        rows.append(
            {
                "target": name,
                "tried": sum(result.executions for result in own),
                "refused": sum(result.refused for result in own),
                "read": sum(result.accepted for result in own),
                "failures": len(found),
                "slowest, s": max(result.slowest_s for result in own),
                "memory, MB": max(result.peak_mb for result in own),
            }
        )
    return PartReport("fuzz", rows, failures, time.perf_counter() - start)


def _programs() -> str:
    """Return eight digits that change with any code that is run here."""
    found = hashlib.sha256()
    for folder in ("custom", "data_prep", "tests/custom", "tests/reliability"):
        for path in sorted(Path(_ROOT, folder).rglob("*.py")):
            found.update(path.read_bytes())
    return found.hexdigest()[:8]


def _kept_share(folder: Path, name: str, executions: int, seed: int) -> FuzzResult:
    """Return the stored result of a share, or run and store it; a share that could not run is a failure."""
    path = folder / f"{name}_{seed}_{executions}.json"
    if not path.exists():
        try:
            result = run(name, executions, seed)
        except NotReadyError as error:  # the other shares can still run; this one is run the next time
            return FuzzResult(0, 0, 0, [f"seed {seed}: {error}"], 0.0, 0.0)
        write_whole(path, lambda file: file.write(json.dumps(asdict(result)).encode()))
    return FuzzResult(**json.loads(path.read_text()))


def damaged(target: Target, seeds: Sequence[bytes], seed: int, number: int) -> bytes:
    """Return the damaged file of one execution."""
    rng = Random(f"{seed}/{number}")
    return target.mutate(rng, rng.choice(seeds))


class NotReadyError(RuntimeError):
    """A process ended before its first execution."""


class _State(NamedTuple):
    """What the reading process reports to the watching process, in shared memory."""

    number: float  # number of the execution
    began: float  # CPU seconds at its start; infinite before the first one
    refused: float
    accepted: float
    slowest: float
    peak: float


def _run_process(target: Target, folder: Path, numbers: range, seed: int, state: Any) -> list[str]:
    """Run executions until they are done or one crashes or hangs; return a line for each failure."""
    state[0], state[1] = numbers.start, math.inf
    receiver, sender = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_work, args=(target, folder, numbers, seed, state, sender), daemon=True)
    process.start()
    sender.close()
    failures, problem, base = [], None, None
    while problem is None and (process.is_alive() or receiver.poll()):
        if receiver.poll(0.05):
            try:
                failures.append(receiver.recv())
            except EOFError:
                break
        if not math.isinf(state[1]):
            used, held = _usage(process.pid)
            base = held if base is None else base
            if used - state[1] > SECONDS:
                problem = f"more than {SECONDS:g} s"
            elif held - base > 4 * MEGABYTES:
                problem = f"{held - base:.0f} MB of memory"
    if problem is not None:
        process.kill()
    process.join()
    if problem is None and process.exitcode:
        log = (folder / _LOG).read_text(errors="replace")
        if math.isinf(state[1]):
            raise NotReadyError(f"the target cannot be made ready: code {process.exitcode} {log}".strip())
        problem = f"the process ended with code {process.exitcode}: {' '.join(log.split())[:600]}"
    return failures if problem is None else [*failures, f"seed {seed}, execution {int(state[0])}: {problem}"]


def _work(target: Target, folder: Path, numbers: range, seed: int, state: Any, failures: Connection) -> None:
    """Run executions in this process."""
    log = os.open(folder / _LOG, os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 2)
    os.dup2(log, 1)
    os.environ |= {name: str(value) for name, value in target.limits.items()}
    warnings.simplefilter("ignore")
    root = folder / "files"
    root.mkdir()
    seeds, path = target.seeds(root), root / target.file
    faulthandler.enable(2)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    sys.stderr = open(os.devnull, "w")  # libraries log; the log itself is for crashes
    reported: set[str] = set()
    base = _peak()
    for number in numbers:
        path.write_bytes(damaged(target, seeds, seed, number))
        start = time.process_time()
        state[0], state[1] = number, start
        accepted, problem = _execute(target, path)
        seconds, grown = time.process_time() - start, _peak() - base
        if problem is None and seconds > SECONDS:
            problem = f"more than {SECONDS:g} s"
        if problem is None and grown > MEGABYTES and grown > state[5]:
            problem = f"{grown:.0f} MB of memory"
        state[2] += not accepted
        state[3] += accepted
        state[4], state[5] = max(state[4], seconds), max(state[5], grown)
        if problem is not None and problem not in reported:
            reported.add(problem)
            failures.send(f"seed {seed}, execution {number}: {problem}")


def _execute(target: Target, path: Path) -> tuple[bool, str | None]:
    """Read a file; return whether it was accepted, and what is wrong with the result."""
    try:
        target.read(path)
    except target.errors as error:
        return False, _wrong_refusal(error)
    except BaseException as error:  # also SystemExit, which would end a run over thousands of files
        return False, _kind(error)
    return True, None


def _wrong_refusal(error: BaseException) -> str | None:
    """Return what is wrong with an allowed error: really out of memory, or not one short line."""
    text, cause = str(error), error
    while cause is not None:
        if isinstance(cause, MemoryError):
            return f"out of memory: {_kind(cause)}"
        cause = cause.__cause__ or cause.__context__
    if len(text.splitlines()) != 1 or len(text) > _LONGEST_LINE:
        return f"a message of {len(text.splitlines())} lines and {len(text)} letters: {text[:60]!r}"
    return None


def _kind(error: BaseException) -> str:
    """Name an error by its type and the last line of this project that it passed: equal ones are reported once."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(_ROOT)]
    frames = [frame for frame in frames if "site-packages" not in frame.filename]
    place = f"{os.path.relpath(frames[-1].filename, _ROOT)}:{frames[-1].lineno}" if frames else "nowhere"
    return f"{type(error).__name__} at {place}"


def _peak() -> float:
    """Return the peak memory of this process, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _usage(pid: int | None) -> tuple[float, float]:
    """Return CPU seconds and MB of memory of a process; zeros if the system does not report them."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0, 0.0
    ticks, pages = int(fields[11]) + int(fields[12]), int(fields[21])
    return ticks / os.sysconf("SC_CLK_TCK"), pages * resource.getpagesize() / 2**20


def replay(name: str, seed: int, number: int) -> None:
    """Write the file of one execution into the current folder and read it."""
    from tests.reliability.targets import TARGETS

    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / target.file
        content = damaged(target, target.seeds(Path(folder)), seed, number)
        path.write_bytes(content)
        Path(path.name).write_bytes(content)
        target.read(path)


if __name__ == "__main__":
    fire.Fire(replay)
