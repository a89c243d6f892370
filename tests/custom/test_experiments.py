import ast
import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from custom import bundle_run, experiments
from custom.bundle_folder import CONFIGS
from custom.errors import InputError
from custom.experiments import run
from custom.recipes import read_recipe

# Stands for ``python -m monai.bundle run``: notes how it was called, leaves the files of a training or an evaluation.
BUNDLE = """
import json, sys
from pathlib import Path

workflow, options = sys.argv[1], dict(zip(sys.argv[2::2], sys.argv[3::2]))
with open("calls.jsonl", "a") as file:
    print(json.dumps([workflow, options]), file=file)
checkpoints = Path(options["--ckpt_dir"])
name = checkpoints.parts[-3]
if workflow == "training":
    checkpoints.mkdir(parents=True, exist_ok=True)
    for file in ("model.pt", "last.pt"):
        (checkpoints / file).touch()
if Path(f"break_{workflow}_{name}").exists():
    sys.exit("a line\\nerror: all is lost")
if workflow == "evaluating":
    out, dsc = Path(options["--output_dir"]), 60 + int(options["--seed"]) + 5 * (name == "proposed")
    out.mkdir(parents=True, exist_ok=True)
    rows = [f"c{i},US,1,{dsc + i / 10},50" for i in range(8)]
    (out / "cases.csv").write_text("\\n".join(["case,modality,n_masks,dsc,nsd", *rows]) + "\\n")
    (out / "summary.json").write_text(json.dumps({"mean": {"dsc": dsc + 0.35, "nsd": 50.0}}))
"""


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Run in an empty folder with the stand-in; return a function that returns the calls since the last time."""
    script = tmp_path / "stand_in.py"
    script.write_text(BUNDLE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bundle_run, "COMMAND", (sys.executable, str(script)))
    monkeypatch.setattr(experiments, "_samples", lambda experiment: 24)
    file = tmp_path / "calls.jsonl"

    def read():
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return [json.loads(line) for line in lines]

    return read


def table(folder):
    with (folder / "runs.csv").open() as file:
        return list(csv.DictReader(file))


def test_all_runs_and_the_report(calls, tmp_path, capsys):
    recipes, options = ("ablation/proposed", "ablation/no_prompts"), {"epochs": 3, "checkpoint": "own.pt"}
    run(*recipes, seeds=2, dataset_dir="set", out="out", **options)
    done = calls()
    assert [workflow for workflow, _ in done] == ["training", "evaluating"] * 4
    training, evaluating = done[2][1], done[3][1]
    assert training.pop("--config_file").endswith("configs/ablation/proposed.json']")
    assert evaluating.pop("--config_file").endswith(
        "configs/ablation/proposed.json', '{}']".format(CONFIGS / "evaluate.json")
    )
    folder = tmp_path / "out" / "proposed" / "seed_1"
    common = {"--ckpt_dir": f"{folder}/ckpt", "--seed": "1", "--dataset_dir": f"{tmp_path}/set", "--epochs": "3"}
    assert training == common | {"--output_dir": f"{folder}/train", "--checkpoint": "own.pt"}
    assert evaluating == common | {"--output_dir": f"{folder}/eval"}
    assert (folder / "train.log").read_text().startswith("\n# 20")

    rows = table(tmp_path / "out")
    assert [(row["recipe"], row["seed"]) for row in rows] == [
        ("proposed", "0"),
        ("proposed", "1"),
        ("no_prompts", "0"),
        ("no_prompts", "1"),
    ]
    assert list(rows[0]) == ["recipe", "seed", "samples", "seconds", "dsc", "nsd"]
    assert rows[3]["samples"] == "24" and float(rows[3]["dsc"]) == 61.35 and float(rows[3]["seconds"]) >= 0
    report = (tmp_path / "out" / "report" / "report.md").read_text()
    assert report in capsys.readouterr().out
    assert "| proposed | 2 | 65.85 ± 0.00 | 50.00 ± 0.00 |" in report
    assert "| no_prompts | 2 | 60.85 ± 0.00 † | 50.00 ± 0.00 |" in report  # the reference is "proposed"


def test_finished_runs_are_skipped(calls, tmp_path, capsys):
    run("ablation/no_prompts", dataset_dir="set", out="out", device="cpu")
    assert len(calls()) == 2
    before = table(tmp_path / "out")
    run("ablation/no_prompts", seeds=2, dataset_dir="set", out="out", device="cuda:0")
    assert [options["--seed"] for _, options in calls()] == ["1", "1"]
    assert table(tmp_path / "out")[:1] == before
    assert "[1/2] no_prompts, seed 0: DSC 60.35, NSD 50.00" in capsys.readouterr().out


@pytest.mark.parametrize("workflow", ["training", "evaluating"])
def test_failing_run_is_reported_and_carried_on(calls, tmp_path, capsys, workflow):
    broken = tmp_path / f"break_{workflow}_sampling_case"
    broken.touch()
    with pytest.raises(SystemExit, match="error: 1 of 2 runs failed"):
        run("ablation/sampling_*", dataset_dir="set", out="out")
    log = tmp_path / "out" / "sampling_case" / "seed_0" / ("train.log" if workflow == "training" else "eval.log")
    error = f"error: [1/2] sampling_case, seed 0: {workflow} ended with code 1: error: all is lost ({log})\n"
    assert capsys.readouterr().err == error
    assert [row["recipe"] for row in table(tmp_path / "out")] == ["sampling_slice"]
    assert (tmp_path / "out" / "report" / "report.md").is_file()
    calls()

    broken.unlink()
    run("ablation/sampling_*", dataset_dir="set", out="out")
    again = calls()
    assert [w for w, _ in again] == (["training"] if workflow == "training" else []) + ["evaluating"]
    assert again[0][1].get("--resume") == ("True" if workflow == "training" else None)
    assert [row["recipe"] for row in table(tmp_path / "out")] == ["sampling_case", "sampling_slice"]
    if workflow == "training":
        assert log.read_text().count("all is lost") == 1 and log.read_text().count("\n# ") == 2  # both attempts


def test_other_settings_in_the_same_folder(calls):
    run("ablation/proposed", dataset_dir="set", out="out", epochs=3)
    calls()
    with pytest.raises(InputError, match=r"seed_0: epochs: found 4; allowed: 3 as in the run that is there, or ano"):
        run("ablation/no_prompts", "ablation/proposed", dataset_dir="set", out="out", epochs=4)
    assert not calls()


@pytest.mark.parametrize(
    ("recipes", "options", "expected"),
    [
        (
            ["ablation/nothing"],
            {},
            r"recipe: found .ablation/nothing.; allowed: ablation/clip_natural, .*recipes/short",
        ),
        ([], {}, "recipes: found none"),
        (["ablation/proposed"], {"seeds": 0}, "seeds: found 0; allowed: a whole number from 1"),
        (["ablation/proposed"], {"seed": -1}, "seed: found -1; allowed: a whole number from 0"),
        (["ablation/proposed"], {"epoch": 3}, r"--epoch: found a key that cannot be set here; allowed: epochs"),
        (["ablation/proposed"], {"ckpt_dir": "x"}, "--ckpt_dir: found a key that cannot be set here"),
        (["recipes/shipped"], {"weights": "x"}, "--weights: found a key that cannot be set here"),
        (["ablation/*"], {"sampling": "case"}, "--sampling: found case; allowed: slice, which sampling_slice is about"),
        (["ablation/encoder_scratch"], {"checkpoint": "x.pt"}, "--checkpoint: found x.pt; allowed: .* encoder_scratch"),
        (["ablation/proposed"], {"inherits_from": "recipes/x"}, "inherits_from: found 'recipes/x'; allowed: ablation/"),
    ],
)
def test_bad_arguments(calls, tmp_path, recipes, options, expected):
    with pytest.raises(InputError, match=expected):
        run(*recipes, dataset_dir="set", out="out", **options)
    assert not calls() and not (tmp_path / "out").exists()


def test_own_recipe_and_a_name_twice(calls, tmp_path):
    (tmp_path / "mine.json").write_text('{"sampling": "case", "fresh_key": 1}')
    run("mine.json", dataset_dir="set", out="out", fresh_key=2, sampling="slice")  # any key can be overridden
    assert [row["recipe"] for row in table(tmp_path / "out")] == ["mine"]
    for folder, other, expected in (
        ("one", "ablation/proposed", "recipes: found proposed twice; allowed: names that differ"),
        ("two", "recipes/refined_1", "recipes: found two that are named refined; allowed: names that differ"),
    ):
        (tmp_path / folder).mkdir()
        name = other.partition("/")[2].removesuffix("_1")
        (tmp_path / folder / f"{name}.json").write_text("{}")
        with pytest.raises(InputError, match=expected):
            run(f"{folder}/{name}.json", other, dataset_dir="set", out="out")


def test_stages_are_made_first_and_only_once(calls, tmp_path):
    run("recipes/refined_1", "recipes/refined", out="out", seed=4, seeds=2, checkpoint="own.pt", batch_size=4)
    done = [options for workflow, options in calls() if workflow == "training"]
    folders = [Path(options["--ckpt_dir"]).relative_to(tmp_path / "out") for options in done]
    assert [f"{folder.parts[0]} {options['--seed']}" for folder, options in zip(folders, done, strict=True)] == [
        "refined 0",  # as the later stage wants it
        "refined_1 4",
        "refined_1 5",
        "refined 4",
        "refined 5",
    ]
    start = str(tmp_path / "out" / "refined" / "seed_0" / "ckpt" / "model.pt")
    assert [options["--checkpoint"] for options in done] == ["own.pt", start, start, "own.pt", "own.pt"]
    assert {options["--batch_size"] for options in done} == {"4"}
    assert all("--dataset_dir" not in options for options in done)  # the recipe's
    configs = [Path(path).stem for path in ast.literal_eval(done[1]["--config_file"])]
    assert configs == ["train", "light", "prompts", "refined", "refined_1"]


STEPS = """
from pathlib import Path
def mean(checkpoint, *, towards, share, out):
    text = f"mean({Path(checkpoint).read_text()}, {Path(towards).parts[-4]}, {share})"
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_text(text)
"""


def test_weights_made_of_others(calls, tmp_path, monkeypatch, capsys):
    (tmp_path / "weight_steps.py").write_text(STEPS)
    monkeypatch.syspath_prepend(tmp_path)
    steps = [
        {
            "_target_": "weight_steps.mean",
            "checkpoint": "recipes/refined_2",
            "towards": "recipes/refined",
            "share": 0.5,
        },
        {"_target_": "weight_steps.mean", "towards": "/lite/b/c/d", "share": 0.25},
    ]
    steps = [{"_target_": "weight_steps.mean", **step} for step in steps]
    (tmp_path / "mine.json").write_text(json.dumps({"inherits_from": "recipes/light", "weights": steps}))
    broken = tmp_path / "break_training_refined_2"
    broken.touch()
    with pytest.raises(SystemExit, match="error: 2 of 3 runs failed"):
        run("mine.json", out="out")
    assert "error: [3/3] mine, seed 0: recipes/refined_2 failed\n" in capsys.readouterr().err
    broken.unlink()
    calls()
    run("mine.json", out="out", seeds=3)
    assert [(workflow, Path(options["--ckpt_dir"]).parts[-3]) for workflow, options in calls()] == [
        ("training", "refined_2"),
        ("evaluating", "refined_2"),
        ("evaluating", "mine"),  # once, whatever the seeds
    ]
    weights = tmp_path / "out" / "mine" / "seed_0" / "ckpt" / "model.pt"
    assert weights.read_text() == "mean(mean(, refined, 0.5), lite, 0.25)"
    rows = {row["recipe"]: row for row in table(tmp_path / "out")}
    assert rows["mine"]["samples"] == "" and rows["refined"]["samples"] == "24"


def test_a_recipe_below_the_ablations(calls, tmp_path):
    run("ablation/no_prompts", out="out", inherits_from="recipes/short", clip="none")
    (_, training), _ = calls()
    assert [Path(path).stem for path in ast.literal_eval(training["--config_file"])] == ["train", "short", "no_prompts"]


@pytest.mark.parametrize(("options", "expected"), [({"epoch_length": 12}, 36), ({}, 3 * 44)])
def test_samples_of_the_epochs_that_were(prepared_demo, tmp_path, options, expected):
    (tmp_path / "ckpt").mkdir()
    torch.save({"trainer": {"iteration": 15, "epoch_length": 5, "max_epochs": 9}}, tmp_path / "ckpt" / "last.pt")
    overrides = {"dataset_dir": str(prepared_demo.root), "epochs": 9, "clip": "none", **options}
    recipe = read_recipe(CONFIGS / "ablation" / "proposed.json")
    experiment = experiments.Experiment(recipe=recipe, seed=1, folder=tmp_path, overrides=overrides, stages={})
    before = torch.get_rng_state()
    assert experiments._samples(experiment) == expected  # 44 cases for training
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("number", "everyone"), [(signal.SIGTERM, False), (signal.SIGINT, True)])
def test_stopped_by_a_signal(tmp_path, number, everyone):
    training = """
import signal, time
def stop(number, frame):
    signal.signal(number, signal.SIG_DFL)
    time.sleep(0.3)
    open("saved", "w").close()
    raise SystemExit(128 + number)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
open("started", "w").close()
time.sleep(60)
"""
    (tmp_path / "training.py").write_text(training)
    code = f"""
import sys
from custom import bundle_run, experiments
bundle_run.COMMAND = (sys.executable, {str(tmp_path / "training.py")!r})
sys.argv = ["experiments", "run", "ablation/proposed", "--dataset_dir", "set", "--out", "out"]
experiments.main()
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    options = {"cwd": tmp_path, "env": environment, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen([sys.executable, "-c", code], **options) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "started").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        (os.killpg if everyone else os.kill)(process.pid, number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number and errors == "stopped; the same command carries on from here\n"
    assert (tmp_path / "saved").exists()
    record = json.loads((tmp_path / "out" / "proposed" / "seed_0" / "run.json").read_text())
    assert not record["trained"] and record["seconds"] > 0


def test_command_line(calls, tmp_path, monkeypatch, capsys):
    arguments = ["run", "ablation/sampling_*", "--dataset-dir", "set", "--out", "out", "--clip", "none"]
    monkeypatch.setattr("sys.argv", ["experiments", *arguments])
    experiments.main()
    assert [row["recipe"] for row in table(tmp_path / "out")] == ["sampling_case", "sampling_slice"]
    assert all(options["--clip"] == "none" for _, options in calls())
    monkeypatch.setattr("sys.argv", ["experiments", "run", "ablation/x", "--dataset_dir", "set", "--out", "out"])
    with pytest.raises(SystemExit, match="error: arguments: recipe: found 'ablation/x'"):
        experiments.main()
