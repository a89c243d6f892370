"""Make and evaluate recipes, unattended, over seeds.

python -m custom.experiments run recipes/shipped --out runs
"""

from __future__ import annotations

import json
import pkgutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from custom import command_line
from custom.atomic_write import write_whole
from custom.bundle_run import BundleError, read_config, run_bundle
from custom.errors import InputError
from custom.recipes import EVALUATE, INHERITS_FROM, TRAIN, WEIGHTS, Recipe, find_recipes, read_object, stage
from custom.report import METRICS, compare, read_run, write_report
from custom.report.rows import write_rows

COLUMNS = ("recipe", "seed", "samples", "seconds", *METRICS)
_OWN_KEYS = ("config_file", "ckpt_dir", "output_dir", "resume", WEIGHTS)
# Where a run is done, not what is done; these may change when it carries on.
_MACHINE_KEYS = ("device", "num_workers")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One recipe with one seed.

    Attributes:
        recipe: the recipe.
        seed: seed of the training.
        folder: where everything of the run goes.
        overrides: config keys set on the command line, for training and evaluating.
        stages: the weights of the recipes that it starts from, by the names it has for them.
    """

    recipe: Recipe
    seed: int
    folder: Path
    overrides: Mapping[str, Any]
    stages: Mapping[str, Path]

    @property
    def weights(self) -> Path:
        """The weights that the run makes."""
        return self.folder / "ckpt" / "model.pt"

    @property
    def configs(self) -> list[Path]:
        """The config files of the training."""
        return [TRAIN, *self.recipe.files]

    def settings(self) -> dict[str, Any]:
        """Return what the results depend on; a folder holds the results of one such set."""
        kept = {key: str(value) for key, value in self.overrides.items() if key not in _MACHINE_KEYS}
        return {"recipe": self.recipe.content, **kept}


class Record:
    """What is known about a run, kept in ``run.json`` of its folder so that a stopped run carries on.

    Attributes:
        trained: whether the weights are made.
        seconds: wall-clock seconds spent in making them, over all attempts.
        result: the run's line of the table, or None until it is evaluated.

    Raises:
        InputError: the folder holds a run of other settings.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.path, self.settings = experiment.folder / "run.json", experiment.settings()
        known = read_object(self.path) if self.path.is_file() else {}
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


def run(
    *recipes: str,
    out: str,
    dataset_dir: str | None = None,
    seeds: int = 1,
    inherits_from: str | None = None,
    reference: str = "proposed",
    **overrides: Any,
) -> None:
    """Make the weights of every recipe and evaluate them, then write ``runs.csv`` and a report.

    A recipe is a small config over ``configs/train.json``; the recipes that it starts from are made first. Finished
    runs are skipped and stopped ones carry on. A run that fails is reported, the others go on, and the command ends
    with code 1. Each run leaves ``OUT/<recipe>/seed_<n>/``: ``train.log``, ``train/``, ``ckpt/model.pt``, ``eval/``.

    Args:
        recipes: names below ``configs/`` without ".json" such as recipes/shipped, patterns such as "ablation/*", or
            config files anywhere.
        out: folder of all results.
        dataset_dir: the prepared set; by default the recipe's.
        seeds: number of seeds, counted up from the recipe's own (0 if it has none) or from --seed.
        inherits_from: a recipe below all of these, for instance recipes/short, in place of the one each names.
        reference: recipe the others are tested against, where it is among them.
        overrides: further keys of the configs, for instance --epochs 5 --clip none; they have the last word. With
            ``checkpoint`` the first stage starts from another file; an evaluation takes the weights just made.

    Raises:
        InputError: no such recipe or key, or a folder holds a run of other settings.
    """
    chosen = find_recipes(recipes, inherits_from)
    _check(chosen, seeds, overrides)
    folder, seed = Path(str(out)).absolute(), overrides.pop("seed", None)
    if dataset_dir is not None:
        overrides = {"dataset_dir": str(Path(str(dataset_dir)).absolute()), **overrides}
    planned: dict[Path, Experiment] = {}
    for recipe in chosen:
        first = recipe.seed if seed is None else seed
        for number in range(first, first + (1 if recipe.steps else seeds)):
            _plan(recipe, number, folder, overrides, planned)
    _run_all(list(planned.values()), folder, reference)


def _plan(
    recipe: Recipe,
    seed: int,
    folder: Path,
    overrides: Mapping[str, Any],
    planned: dict[Path, Experiment],
    above: tuple[Recipe, ...] = (),
) -> Experiment:
    """Add a run behind the runs that it starts from; return it."""
    if recipe in above:
        raise InputError(recipe.files[-1], "stages", recipe.name, "recipes that do not start from this one")
    stages = {}
    for name in recipe.stages:
        earlier = stage(name)
        stages[name] = _plan(earlier, earlier.seed, folder, overrides, planned, (*above, recipe)).weights
    place = folder / recipe.name / f"seed_{seed}"
    wanted = Experiment(recipe=recipe, seed=seed, folder=place, overrides=overrides, stages=stages)
    if planned.setdefault(place, wanted) != wanted:
        raise InputError("arguments", "recipes", f"two that are named {recipe.name}", "names that differ")
    return wanted


def _run_all(experiments: Sequence[Experiment], folder: Path, reference: str) -> None:
    records = [Record(experiment) for experiment in experiments]  # all of them, before the first hour is spent
    failed: list[Path] = []
    for number, (experiment, record) in enumerate(zip(experiments, records, strict=True), 1):
        title = f"[{number}/{len(experiments)}] {experiment.recipe.name}, seed {experiment.seed}"
        try:
            known = record.result is not None
            if not known:
                print(f"{title}: started", flush=True)
                _complete(experiment, record, failed)
            scores = ", ".join(f"{metric.upper()} {record.result[metric]:.2f}" for metric in METRICS)
            print(f"{title}: {scores}, made in {record.seconds:.0f} s{' (known)' if known else ''}", flush=True)
        except (BundleError, InputError) as error:
            failed.append(experiment.weights)
            print(f"error: {title}: {error}", file=sys.stderr, flush=True)
        results = [other.result for other in records if other.result is not None]
        write_rows(folder / "runs.csv", COLUMNS, ([result[column] for column in COLUMNS] for result in results))
    _report(experiments, records, folder, reference)
    if failed:
        sys.exit(f"error: {len(failed)} of {len(experiments)} runs failed")


def _complete(experiment: Experiment, record: Record, failed: Sequence[Path]) -> None:
    """Make the weights and evaluate them, as far as it is not done."""
    folder = experiment.folder
    lacking = [name for name, weights in experiment.stages.items() if weights in failed]
    if lacking:
        raise BundleError(f"{', '.join(lacking)} failed")
    record.save()
    if not record.trained:
        make = _combine if experiment.recipe.steps else _train
        with record.timed():
            make(experiment)
        record.trained = True
        record.save()
    places = {"ckpt_dir": experiment.weights.parent, "seed": experiment.seed, "output_dir": folder / "eval"}
    options = {key: value for key, value in experiment.overrides.items() if key != "checkpoint"}
    run_bundle("evaluating", [*experiment.configs, EVALUATE], {**places, **options}, log=folder / "eval.log")
    mean = read_object(folder / "eval" / "summary.json")["mean"]
    record.result = {
        "recipe": experiment.recipe.name,
        "seed": experiment.seed,
        "samples": None if experiment.recipe.steps else _samples(experiment),
        "seconds": round(record.seconds, 1),
        **{metric: mean[metric] for metric in METRICS},
    }
    record.save()


def _train(experiment: Experiment) -> None:
    folder, checkpoints = experiment.folder, experiment.weights.parent
    places = {"ckpt_dir": checkpoints, "seed": experiment.seed, "output_dir": folder / "train"}
    options = {**places, **experiment.overrides}
    if experiment.stages:
        (options["checkpoint"],) = experiment.stages.values()
    if any(checkpoints.glob("*.pt")):
        options["resume"] = True
    run_bundle("training", experiment.configs, options, log=folder / "train.log")


def _combine(experiment: Experiment) -> None:
    """Make weights out of others: each step writes the file that the next one reads."""
    out = str(experiment.weights)
    for step in experiment.recipe.steps:
        arguments = {key: experiment.stages.get(value, value) for key, value in step.items() if key != "_target_"}
        _function(experiment.recipe, step)(**{"checkpoint": out, **arguments, "out": out})


def _function(recipe: Recipe, step: Mapping[str, Any]) -> Callable[..., None]:
    name = step.get("_target_", "")
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(recipe.files[-1], WEIGHTS, repr(name), "a _target_ that is a function") from error


def _samples(experiment: Experiment) -> int:
    """Return the number of boxes the training drew: its epochs, of which early stopping may leave some out."""
    import torch

    from custom.handlers.restarts import LAST

    last = experiment.weights.with_name(LAST)
    trainer = torch.load(last, map_location="cpu", weights_only=True, mmap=True)["trainer"]
    # The sampler is all that is wanted of the data set; its transforms would load a CLIP.
    overrides = {**experiment.overrides, "seed": experiment.seed, "train#dataset#transform": None}
    sampler = read_config(experiment.configs, overrides).get_parsed_content("train#sampler")
    return trainer["iteration"] // trainer["epoch_length"] * len(sampler)


def _check(chosen: Sequence[Recipe], seeds: int, overrides: Mapping[str, Any]) -> None:
    for name, number, least in (("seeds", seeds, 1), ("seed", overrides.get("seed", 0), 0)):
        if not isinstance(number, int) or isinstance(number, bool) or number < least:
            raise InputError("arguments", name, number, f"a whole number from {least}")
    base, contents = read_object(TRAIN), [recipe.content for recipe in chosen]
    known = {"seeds", "reference", INHERITS_FROM}.union(base, read_object(EVALUATE), *contents)
    command_line.check_keys(overrides, known - set(_OWN_KEYS))
    for recipe in chosen:
        for step in recipe.steps:
            _function(recipe, step)  # now, not after hours of training
        own = read_object(recipe.files[-1]) if recipe.files[-1].parent.name == "ablation" else {}
        for key, value in overrides.items():
            if own.get(key, value) != value and key in base and key != "clip":  # almost all name the same CLIP
                raise InputError("arguments", f"--{key}", value, f"{own[key]}, which {recipe.name} is about")


def _report(experiments: Sequence[Experiment], records: Sequence[Record], folder: Path, reference: str) -> None:
    """Report the recipes, each over its finished seeds."""
    finished: dict[str, list[str]] = {}
    for experiment, record in zip(experiments, records, strict=True):
        if record.result is not None:
            finished.setdefault(experiment.recipe.name, []).append(str(experiment.folder))
    if not finished:
        return
    runs = [read_run(name, folders) for name, folders in finished.items()]
    print(write_report(compare(runs, reference if reference in finished else None), folder / "report"))


class Commands:
    """Make and evaluate recipes, unattended, over seeds."""

    run = staticmethod(run)


def main() -> None:
    """Run the command line."""
    command_line.run(Commands(), name="python -m custom.experiments")


if __name__ == "__main__":
    main()
