"""Train and evaluate overlays over seeds, unattended.

python -m custom.experiments run ablation/proposed ablation/no_prompts --seeds 3 --dataset_dir D --out DIR
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from custom import command_line
from custom.bundle_folder import CONFIGS
from custom.errors import InputError
from custom.files import write_whole
from custom.report import METRICS, compare, read_run, write_report

BUNDLE_COMMAND = (sys.executable, "-m", "monai.bundle", "run")
COLUMNS = ("overlay", "seed", "samples", "seconds", *METRICS)
_OWN_KEYS = ("config_file", "ckpt_dir", "output_dir", "seed", "resume")
# Where a run is done, not what is done; these may change when it carries on.
_MACHINE_KEYS = ("device", "num_workers")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One overlay with one seed.

    Attributes:
        overlay: the overlay's config file.
        seed: seed of the training.
        folder: where everything of the run goes.
        overrides: config keys set on the command line, for training and evaluating.
    """

    overlay: Path
    seed: int
    folder: Path
    overrides: Mapping[str, Any]

    def settings(self) -> dict[str, Any]:
        """Return what the results depend on; a folder holds the results of one such set."""
        kept = {key: str(value) for key, value in self.overrides.items() if key not in _MACHINE_KEYS}
        return {"overlay": json.loads(self.overlay.read_text(encoding="utf-8")), **kept}

    def configs(self) -> list[str]:
        """Return the config files of the training."""
        return [str(CONFIGS / "train.json"), str(self.overlay)]


class Record:
    """What is known about a run, kept in ``run.json`` of its folder so that a stopped run carries on.

    Attributes:
        trained: whether the training went to its end.
        seconds: wall-clock seconds spent in training, over all attempts.
        result: the run's line of the table, or None until it is evaluated.

    Raises:
        InputError: the folder holds a run of other settings.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.path, self.settings = experiment.folder / "run.json", experiment.settings()
        known = json.loads(self.path.read_text(encoding="utf-8")) if self.path.is_file() else {}
        before = known.get("settings", self.settings)
        for key in sorted(before.keys() | self.settings.keys()):
            if before.get(key) != self.settings.get(key):
                allowed = f"{before.get(key)} as in the run that is there, or another --out"
                raise InputError(experiment.folder, key, self.settings.get(key), allowed)
        self.trained: bool = known.get("trained", False)
        self.seconds: float = known.get("seconds", 0.0)
        self.result: dict[str, Any] | None = known.get("result")

    def save(self) -> None:
        """Write the file."""
        names = ("settings", "trained", "seconds", "result")
        text = json.dumps({name: getattr(self, name) for name in names}, indent=2) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, lambda file: file.write(text.encode()))

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Add the time inside to ``seconds`` and save, whatever happens."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds += time.monotonic() - start
            self.save()


class BundleError(RuntimeError):
    """A training or an evaluation that ended with an error."""


def run(
    *overlays: str, dataset_dir: str, out: str, seeds: int = 1, reference: str = "proposed", **overrides: Any
) -> None:
    """Train and evaluate every overlay with every seed, then write ``runs.csv`` and a report.

    Finished runs are skipped and stopped ones carry on. A run that fails is reported, the others go on, and the command
    ends with code 1. Each run leaves ``OUT/<overlay>/seed_<n>/``: ``train.log``, ``train/``, ``ckpt/``, ``eval/``.

    Args:
        overlays: config files over ``configs/train.json``: names below ``configs/`` without ".json", patterns such as
            "ablation/*", or files anywhere.
        dataset_dir: the prepared set.
        out: folder of all results.
        seeds: number of seeds, 0 to SEEDS - 1.
        reference: overlay the others are tested against, where it is among them.
        overrides: further keys of the configs, for instance --epochs 5 --clip none; ``checkpoint`` is for training,
            an evaluation takes the training's.

    Raises:
        InputError: no such overlay or key, or a folder holds a run of other settings.
    """
    files = _overlay_files(overlays)
    _check(files, seeds, overrides)
    folder = Path(str(out)).absolute()
    overrides = {"dataset_dir": str(Path(str(dataset_dir)).absolute()), **overrides}
    experiments = [
        Experiment(overlay=file, seed=seed, folder=folder / file.stem / f"seed_{seed}", overrides=overrides)
        for file in files
        for seed in range(seeds)
    ]
    records = [Record(experiment) for experiment in experiments]  # all of them, before the first hour is spent
    failed = 0
    for number, (experiment, record) in enumerate(zip(experiments, records, strict=True), 1):
        title = f"[{number}/{len(experiments)}] {experiment.overlay.stem}, seed {experiment.seed}"
        try:
            known = record.result is not None
            if not known:
                print(f"{title}: started", flush=True)
                _complete(experiment, record)
            scores = ", ".join(f"{metric.upper()} {record.result[metric]:.2f}" for metric in METRICS)
            print(f"{title}: {scores}, trained in {record.seconds:.0f} s{' (known)' if known else ''}", flush=True)
        except BundleError as error:
            failed += 1
            print(f"error: {title}: {error}", file=sys.stderr, flush=True)
        _write_table(folder / "runs.csv", records)
    _report(experiments, records, folder, reference)
    if failed:
        sys.exit(f"error: {failed} of {len(experiments)} runs failed")


def _complete(experiment: Experiment, record: Record) -> None:
    """Train and evaluate, as far as it is not done."""
    folder, seed = experiment.folder, ["--seed", str(experiment.seed)]
    places = ["--ckpt_dir", str(folder / "ckpt")]
    record.save()
    if not record.trained:
        options = [*places, *seed, "--output_dir", str(folder / "train"), *_arguments(experiment.overrides)]
        with record.timed():
            _bundle("training", experiment.configs(), [*options, *_resume(folder / "ckpt")], folder / "train.log")
        record.trained = True
        record.save()
    overrides = {key: value for key, value in experiment.overrides.items() if key != "checkpoint"}
    options = [*places, *seed, "--output_dir", str(folder / "eval"), *_arguments(overrides)]
    configs = [*experiment.configs(), str(CONFIGS / "evaluate.json")]
    _bundle("evaluating", configs, options, folder / "eval.log")
    mean = json.loads((folder / "eval" / "summary.json").read_text(encoding="utf-8"))["mean"]
    record.result = {
        "overlay": experiment.overlay.stem,
        "seed": experiment.seed,
        "samples": _samples(experiment),
        "seconds": round(record.seconds, 1),
        **{metric: mean[metric] for metric in METRICS},
    }
    record.save()


def _bundle(workflow: str, configs: list[str], options: list[str], log: Path) -> None:
    command = [*BUNDLE_COMMAND, workflow, "--config_file", repr(configs), *options]
    with log.open("a", encoding="utf-8") as file:
        print(f"\n# {time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(command)}", file=file, flush=True)
        with subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT) as process:
            try:
                code = process.wait()
            except KeyboardInterrupt as stop:
                # Ctrl-C has reached it already, and a second signal would end it at once.
                if isinstance(stop, command_line.Terminated):
                    process.terminate()
                process.wait()  # a training saves before it ends
                raise
    if code:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise BundleError(f"{workflow} ended with code {code}: {lines[-1].strip()} ({log})")


def _resume(checkpoints: Path) -> list[str]:
    """Return the option that carries a training on, where there is something to carry on from."""
    known = "resume" in json.loads((CONFIGS / "train.json").read_text(encoding="utf-8"))
    return ["--resume", "True"] if known and any(checkpoints.glob("*.pt")) else []


def _samples(experiment: Experiment) -> int:
    """Return the number of boxes the training drew: its epochs, of which early stopping may leave some out."""
    import torch
    from monai.bundle import ConfigParser

    from custom.handlers.restarts import LAST

    trainer = torch.load(experiment.folder / "ckpt" / LAST, map_location="cpu", weights_only=True, mmap=True)["trainer"]
    parser = ConfigParser()
    parser.read_config(experiment.configs())
    # The sampler is all that is wanted of the data set; its transforms would load a CLIP.
    parser.update({**experiment.overrides, "seed": experiment.seed, "train#dataset#transform": None})
    return trainer["iteration"] // trainer["epoch_length"] * len(parser.get_parsed_content("train#sampler"))


def _arguments(overrides: Mapping[str, Any]) -> list[str]:
    return [text for key, value in overrides.items() for text in (f"--{key}", str(value))]


def _overlay_files(names: tuple[str, ...]) -> list[Path]:
    files: list[Path] = []
    for name in map(str, names):
        found = [Path(name).absolute()] if Path(name).is_file() else sorted(CONFIGS.glob(f"{name}.json"))
        if not found:
            known = ", ".join(sorted(f"ablation/{path.stem}" for path in (CONFIGS / "ablation").glob("*.json")))
            raise InputError("arguments", "overlay", repr(name), f"{known}, or a config file")
        files += found
    files = list(dict.fromkeys(files))
    stems = [file.stem for file in files]
    repeated = next((stem for stem in stems if stems.count(stem) > 1), None)
    if not files or repeated:
        raise InputError("arguments", "overlays", f"{repeated} twice" if repeated else "none", "names that differ")
    return files


def _check(files: list[Path], seeds: int, overrides: Mapping[str, Any]) -> None:
    if not isinstance(seeds, int) or isinstance(seeds, bool) or seeds < 1:
        raise InputError("arguments", "seeds", seeds, "a whole number from 1")
    base, *contents = (json.loads(file.read_text(encoding="utf-8")) for file in (CONFIGS / "train.json", *files))
    known = {"seeds", "reference"}.union(base, *contents) - set(_OWN_KEYS)
    command_line.check_keys(overrides, known)
    for key, value in overrides.items():
        for file, overlay in zip(files, contents, strict=True):
            if key in base and overlay.get(key, value) != value and key != "clip":  # almost all name the same CLIP
                raise InputError("arguments", f"--{key}", value, f"{overlay[key]}, which {file.stem} is about")


def _write_table(path: Path, records: list[Record]) -> None:
    text = StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(record.result for record in records if record.result is not None)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda file: file.write(text.getvalue().encode()))


def _report(experiments: list[Experiment], records: list[Record], folder: Path, reference: str) -> None:
    """Report the overlays, each over its finished seeds."""
    finished: dict[str, list[str]] = {}
    for experiment, record in zip(experiments, records, strict=True):
        if record.result is not None:
            finished.setdefault(experiment.overlay.stem, []).append(str(experiment.folder))
    if not finished:
        return
    runs = [read_run(name, folders) for name, folders in finished.items()]
    print(write_report(compare(runs, reference if reference in finished else None), folder / "report"))


class Commands:
    """Train and evaluate overlays of the training's configuration over seeds, unattended."""

    run = staticmethod(run)


def main() -> None:
    """Run the command line."""
    command_line.run(Commands(), name="python -m custom.experiments")


if __name__ == "__main__":
    main()
