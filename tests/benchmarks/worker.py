"""A process that segments one file after another and reports the seconds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

BASELINE, TORCH, AUTO = "LiteMedSAM", "PyTorch f32", "default"


class Worker:
    """Another process with one system, started and warm.

    Args:
        system: ``BASELINE``, ``TORCH`` (the shipped weights in PyTorch), ``AUTO`` (what ``Predictor()`` chooses), or
            an exported folder, which is run by the project's own torch-free pipeline.
        environment: of the process.
    """

    def __init__(self, system: str, environment: Mapping[str, str]) -> None:
        command = [sys.executable, "-m", "tests.benchmarks.worker", system]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)

    def seconds(self, path: Path, out: Path) -> float:
        """Segment a file; returns the seconds from file to file."""
        print(json.dumps([str(path), str(out)]), file=self._process.stdin, flush=True)
        return float(self._answer())

    def close(self) -> float:
        """End the process; returns its peak memory, GB."""
        self._process.stdin.close()
        peak = float(self._answer())
        self._process.wait()
        return peak

    def _answer(self) -> str:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args} ended with exit code {self._process.wait()}")
        return line


def peak_memory() -> float:
    """Return the peak memory of this process, GB (1e9 bytes)."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024 / 1e9


def _start(system: str) -> Callable[[Path, Path], object]:
    if system == BASELINE:
        from tests.benchmarks.lite_medsam import LiteMedSAM

        return LiteMedSAM().run
    from custom import Predictor
    from custom.inference.batch import SegmentOptions, segment_case
    from custom.inference.cases import list_cases

    if system == TORCH:
        predictor = Predictor(backend="torch", precision="f32", embeddings=0)
    else:
        predictor = Predictor(embeddings=0) if system == AUTO else Predictor(model=system, embeddings=0)
    predictor.network.start()
    return lambda path, out: segment_case(list_cases(path)[0][0], predictor, SegmentOptions(), out)


def main() -> None:
    """Answer each line (input file and output folder as JSON) with the seconds, and at the end with the peak memory."""
    answers, sys.stdout = sys.stdout, sys.stderr
    run = _start(sys.argv[1])
    for line in sys.stdin:
        path, out = map(Path, json.loads(line))
        start = time.perf_counter()
        run(path, out)
        print(time.perf_counter() - start, file=answers, flush=True)
    if sys.argv[1] not in (BASELINE, TORCH) and {"torch", "monai"} & set(sys.modules):
        sys.exit("PyTorch or MONAI came into the process")
    print(peak_memory(), file=answers, flush=True)


if __name__ == "__main__":
    main()
