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

from custom import experiments
from custom.errors import InputError
from custom.experiments import run

# Stands for ``python -m monai.bundle run``: notes how it was called, leaves the files of a training or an evaluation.
BUNDLE = """
import json, sys
from pathlib import Path

workflow, options = sys.argv[1], dict(zip(sys.argv[2::2], sys.argv[3::2]))
with open("calls.jsonl", "a") as file:
    print(json.dumps([workflow, options]), file=file)
overlay = Path(eval(options["--config_file"])[1]).stem
checkpoint = Path(options["--ckpt_dir"]) / "last.pt"
if workflow == "training":
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.touch()
if Path(f"break_{workflow}").exists() and overlay == "no_prompts":
    sys.exit("a line\\nerror: all is lost")
if workflow == "evaluating":
    out, dsc = Path(options["--output_dir"]), 60 + int(options["--seed"]) + 5 * (overlay == "proposed")
    out.mkdir(parents=True, exist_ok=True)
    rows = [f"c{i},US,1,{dsc + i / 10},50" for i in range(8)]
    (out / "cases.csv").write_text("\\n".join(["case,modality,n_masks,dsc,nsd", *rows]) + "\\n")
    (out / "summary.json").write_text(json.dumps({"mean": {"dsc": dsc + 0.35, "nsd": 50.0}}))
"""


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Run in an empty folder with the stand-in; return a function that tells the calls since the last time."""
    script = tmp_path / "stand_in.py"
    script.write_text(BUNDLE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiments, "BUNDLE_COMMAND", (sys.executable, str(script)))
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
    overlays, options = ("ablation/proposed", "ablation/no_prompts"), {"epochs": 3, "checkpoint": "own.pt"}
    run(*overlays, seeds=2, dataset_dir="set", out="out", **options)
    done = calls()
    assert [workflow for workflow, _ in done] == ["training", "evaluating"] * 4
    training, evaluating = done[2][1], done[3][1]
    assert training.pop("--config_file").endswith("configs/ablation/proposed.json']")
    assert evaluating.pop("--config_file").endswith(
        "configs/ablation/proposed.json', '{}']".format(experiments.CONFIGS / "evaluate.json")
    )
    folder = tmp_path / "out" / "proposed" / "seed_1"
    common = {"--ckpt_dir": f"{folder}/ckpt", "--seed": "1", "--dataset_dir": f"{tmp_path}/set", "--epochs": "3"}
    assert training == common | {"--output_dir": f"{folder}/train", "--checkpoint": "own.pt"}
    assert evaluating == common | {"--output_dir": f"{folder}/eval"}
    assert (folder / "train.log").read_text().startswith("\n# 20")

    rows = table(tmp_path / "out")
    assert [(row["overlay"], row["seed"]) for row in rows] == [
        ("proposed", "0"),
        ("proposed", "1"),
        ("no_prompts", "0"),
        ("no_prompts", "1"),
    ]
    assert list(rows[0]) == ["overlay", "seed", "samples", "seconds", "dsc", "nsd"]
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
@pytest.mark.parametrize("resumable", [False, True])
def test_failing_run_is_told_and_carried_on(calls, tmp_path, capsys, monkeypatch, workflow, resumable):
    configs = tmp_path / "configs"
    (configs / "ablation").mkdir(parents=True)
    keys = {"epochs": 1, "checkpoint": "x"} | ({"resume": False} if resumable else {})
    (configs / "train.json").write_text(json.dumps(keys))
    for name in ("no_prompts", "proposed"):
        (configs / "ablation" / f"{name}.json").write_text("{}")
    monkeypatch.setattr(experiments, "CONFIGS", configs)
    broken = tmp_path / f"break_{workflow}"
    broken.touch()
    with pytest.raises(SystemExit, match="error: 1 of 2 runs failed"):
        run("ablation/*", dataset_dir="set", out="out")
    log = tmp_path / "out" / "no_prompts" / "seed_0" / ("train.log" if workflow == "training" else "eval.log")
    told = f"error: [1/2] no_prompts, seed 0: {workflow} ended with code 1: error: all is lost ({log})\n"
    assert capsys.readouterr().err == told
    assert [row["overlay"] for row in table(tmp_path / "out")] == ["proposed"]
    assert (tmp_path / "out" / "report" / "report.md").is_file()
    calls()

    broken.unlink()
    run("ablation/*", dataset_dir="set", out="out")
    again = calls()
    assert [w for w, _ in again] == (["training"] if workflow == "training" else []) + ["evaluating"]
    assert again[0][1].get("--resume") == ("True" if resumable and workflow == "training" else None)
    assert [row["overlay"] for row in table(tmp_path / "out")] == ["no_prompts", "proposed"]
    if workflow == "training":
        assert log.read_text().count("all is lost") == 1 and log.read_text().count("\n# ") == 2  # both attempts


def test_other_settings_in_the_same_folder(calls):
    run("ablation/proposed", dataset_dir="set", out="out", epochs=3)
    calls()
    with pytest.raises(InputError, match=r"seed_0: epochs: found 4; allowed: 3 as in the run that is there, or ano"):
        run("ablation/no_prompts", "ablation/proposed", dataset_dir="set", out="out", epochs=4)
    assert not calls()


@pytest.mark.parametrize(
    ("overlays", "options", "expected"),
    [
        (["ablation/nothing"], {}, r"overlay: found 'ablation/nothing'; allowed: ablation/clip_natural, "),
        ([], {}, "overlays: found none"),
        (["ablation/proposed"], {"seeds": 0}, "seeds: found 0; allowed: a whole number from 1"),
        (["ablation/proposed"], {"epoch": 3}, r"--epoch: found a key that cannot be set here; allowed: epochs"),
        (["ablation/proposed"], {"ckpt_dir": "x"}, "--ckpt_dir: found a key that cannot be set here"),
        (["ablation/*"], {"sampling": "case"}, "--sampling: found case; allowed: slice, which sampling_slice is about"),
        (["ablation/encoder_scratch"], {"checkpoint": "x.pt"}, "--checkpoint: found x.pt; allowed: .* encoder_scratch"),
    ],
)
def test_bad_arguments(calls, tmp_path, overlays, options, expected):
    with pytest.raises(InputError, match=expected):
        run(*overlays, dataset_dir="set", out="out", **options)
    assert not calls() and not (tmp_path / "out").exists()


def test_own_overlay_file_and_a_name_twice(calls, tmp_path):
    (tmp_path / "mine.json").write_text('{"sampling": "case", "fresh_key": 1}')
    run("mine.json", dataset_dir="set", out="out", fresh_key=2)
    assert [row["overlay"] for row in table(tmp_path / "out")] == ["mine"]
    (tmp_path / "proposed.json").write_text("{}")
    with pytest.raises(InputError, match="overlays: found proposed twice; allowed: names that differ"):
        run("proposed.json", "ablation/proposed", dataset_dir="set", out="out")


@pytest.mark.parametrize(("options", "expected"), [({"epoch_length": 12}, 36), ({}, 3 * 44)])
def test_samples_of_the_epochs_that_were(prepared_demo, tmp_path, options, expected):
    (tmp_path / "ckpt").mkdir()
    torch.save({"trainer": {"iteration": 15, "epoch_length": 5, "max_epochs": 9}}, tmp_path / "ckpt" / "last.pt")
    overrides = {"dataset_dir": str(prepared_demo.root), "epochs": 9, "clip": "none", **options}
    overlay = experiments.CONFIGS / "ablation" / "proposed.json"
    experiment = experiments.Experiment(overlay=overlay, seed=1, folder=tmp_path, overrides=overrides)
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
from custom import experiments
experiments.BUNDLE_COMMAND = (sys.executable, {str(tmp_path / "training.py")!r})
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
    assert [row["overlay"] for row in table(tmp_path / "out")] == ["sampling_case", "sampling_slice"]
    assert all(options["--clip"] == "none" for _, options in calls())
    monkeypatch.setattr("sys.argv", ["experiments", "run", "ablation/x", "--dataset_dir", "set", "--out", "out"])
    with pytest.raises(SystemExit, match="error: arguments: overlay: found 'ablation/x'"):
        experiments.main()
