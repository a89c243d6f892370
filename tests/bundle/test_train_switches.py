"""The switches of ``train.json`` and ``evaluate.json`` besides the paper's recipe, through the bundle itself."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ignite.engine import Events
from monai.bundle import create_workflow, run

from custom.checkpoints import load_checkpoint
from custom.lite_medsam import lite_medsam_path
from custom.networks import build_mcp_medsam

CONFIGS = Path(__file__).parents[2] / "bundle" / "configs"
OPTIONS = {"clip": "none", "freeze_image_encoder": True, "device": "cpu", "num_workers": 0, "silent": True}
SHORT = {"epochs": 1, "epoch_length": 3, "batch_size": 1, "val_slices": 1, "val_masks": 2, "save_interval": 1}
AUGMENTED = {"affine_prob": 1.0, "intensity_prob": 1.0, "box_scale": 0.3, "loose_prob": 0.5, "mask_refinement": True}


class Killed(BaseException):
    pass


def train(folder, options, kill_at=None, **more):
    """Train in this process; return the trainer, and end it after an iteration if asked to."""
    workflow = create_workflow(
        config_file=str(CONFIGS / "train.json"),
        workflow_type="train",
        ckpt_dir=str(folder),
        output_dir=str(folder / "eval"),
        **options,
        **more,
    )
    trainer = workflow.trainer
    if kill_at is None:
        workflow.run()
        return trainer

    def kill(_):
        raise Killed

    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=kill_at), kill)
    with pytest.raises(Killed):
        workflow.run()
    return trainer


@pytest.fixture(scope="module")
def options(small_set, tmp_path_factory):
    return {**OPTIONS, **SHORT, "dataset_dir": str(small_set), "ema": 0.5, **AUGMENTED}


@pytest.fixture(scope="module")
def trained(options, tmp_path_factory):
    """A training with every switch on."""
    folder = tmp_path_factory.mktemp("switches")
    train(folder, options)
    return folder


def test_average_is_shipped_and_the_frozen_encoder_kept(trained):
    last, shipped = (torch.load(trained / name, weights_only=True) for name in ("last.pt", "model.pt"))
    assert last["ema"]["n_averaged"] == 3 and shipped.keys() == last["model"].keys()
    assert all(torch.equal(value, last["ema"][f"module.{name}"]) for name, value in shipped.items())
    assert not torch.equal(shipped["mask_decoder.mask_tokens"], last["model"]["mask_decoder.mask_tokens"])
    start = build_mcp_medsam()
    load_checkpoint(start, lite_medsam_path())
    for name, value in start.image_encoder.state_dict().items():
        assert torch.equal(shipped[f"image_encoder.{name}"], value), name


@pytest.mark.slow
def test_resumed_with_average_and_augmentation(trained, options, tmp_path):
    train(tmp_path, options, kill_at=2)
    train(tmp_path, options, resume=True)
    for file, part in (("last.pt", "model"), ("last.pt", "ema"), ("model.pt", None)):
        one, other = (torch.load(folder / file, weights_only=True) for folder in (trained, tmp_path))
        one, other = (one, other) if part is None else (one[part], other[part])
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_off_nothing_is_averaged(options, tmp_path):
    off = options | {"ema": None} | dict.fromkeys(AUGMENTED, 0.0)
    trainer = train(tmp_path, off, kill_at=1)
    assert "ema" not in torch.load(tmp_path / "last.pt", weights_only=True)
    names = [type(step).__name__ for step in trainer.data_loader.dataset.transform.transforms]
    assert "RandAffineMasksd" not in names and "RandAdjustContrastd" not in names


def test_mask_report_and_the_scores_of_the_validation(trained, options, tmp_path):
    configs = [str(CONFIGS / name) for name in ("train.json", "evaluate.json")]
    for declared in (True, False):
        places = {"ckpt_dir": str(trained), "output_dir": str(tmp_path / str(declared))}
        run("evaluating", config_file=configs, mask_report=True, tell_modality=declared, **places, **options)
    cases = [folder / "cases.csv" for folder in (trained / "eval", tmp_path / "True")]
    assert cases[0].read_text() == cases[1].read_text()
    masks = []
    for declared in ("True", "False"):
        with (tmp_path / declared / "masks.csv").open(newline="") as file:
            masks.append(list(csv.DictReader(file)))
    with cases[0].open(newline="") as file:
        scored = {row["case"]: row for row in csv.DictReader(file)}
    for case, row in scored.items():
        own = [line for line in masks[0] if line["case"] == case]
        assert len(own) == int(row["n_masks"])
        dice = [2 * float(line["true_iou"]) / (1 + float(line["true_iou"])) for line in own]  # Dice = 2 IoU / (1 + IoU)
        assert 100 * sum(dice) / len(dice) == pytest.approx(float(row["dsc"]), abs=1e-3)
    assert [line["probability"] for line in masks[0]] != [line["probability"] for line in masks[1]]
    assert json.loads((tmp_path / "False" / "summary.json").read_text())["mean"]["dsc"] > 0


def start(folder, options, workflow, *configs, launcher=()):
    """Start a workflow as its users do."""
    line = [sys.executable, *launcher, "-m", "monai.bundle", "run", workflow]
    line += ["--config_file", str([f"configs/{name}.json" for name in ("train", *configs)])]
    for key, value in {"ckpt_dir": folder, "output_dir": folder / workflow, **options}.items():
        line += [f"--{key}", str(value)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(line, cwd=CONFIGS.parent, env=os.environ | {"OMP_NUM_THREADS": "1"}, **pipes)


@pytest.mark.slow
def test_two_processes_average_and_report_as_one(options, tmp_path):
    pair = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    # Without GPUs batch normalisation sees each process's share, so it is excluded.
    same = {"content_cnn": False, "modality_embedding": False, "epoch_length": 6}
    settings = {key: value for key, value in (options | same).items() if key != "silent"}
    for workflow, overlays in (("training", ["multi_gpu_train"]), ("evaluating", ["evaluate", "multi_gpu_evaluate"])):
        more = {} if workflow == "training" else {"mask_report": True}
        one = start(tmp_path / "one", settings | more | {"batch_size": 2}, workflow, *overlays[:-1])
        two = start(tmp_path / "two", settings | more, workflow, *overlays, launcher=pair)
        for program in (one, two):
            output, _ = program.communicate()
            assert program.returncode == 0, output
    one, two = (torch.load(tmp_path / name / "last.pt", weights_only=True)["ema"] for name in ("one", "two"))
    for name in one:
        if not name.endswith("k_proj.bias"):  # its gradient is mere rounding, which Adam amplifies
            torch.testing.assert_close(one[name], two[name], rtol=0, atol=5e-5, msg=name)
    tables = [(tmp_path / name / "evaluating" / "masks.csv").read_text().splitlines() for name in ("one", "two")]
    places = [[line.split(",")[:4] for line in table] for table in tables]
    assert places[0] == places[1] and len(places[0]) > 2
    numbers = [[float(line.split(",")[5]) for line in table[1:]] for table in tables]
    assert numbers[0] == pytest.approx(numbers[1], abs=1e-3)
