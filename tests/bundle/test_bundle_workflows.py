"""The bundle as its users start it: MONAI's commands in the bundle's folder, and its functions from elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from custom.checkpoints import load_checkpoint
from custom.lite_medsam import lite_medsam_path
from custom.networks import build_mcp_medsam

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "bundle"
SHORT = ["--clip", "none", "--epochs", "1", "--epoch_length", "4", "--batch_size", "2", "--num_workers", "0"]


def monai_bundle(*arguments: str, cwd: Path = BUNDLE) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "monai.bundle", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)


def in_other_folder(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run Python where neither the bundle nor the repository is the working folder or on the path."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600, check=False, env=environment)


@pytest.fixture(scope="module")
def trained(small_set, tmp_path_factory) -> Path:
    """A folder with the results of a short training."""
    folder = tmp_path_factory.mktemp("run")
    options = ["--dataset_dir", small_set, "--output_dir", folder / "eval", "--ckpt_dir", folder / "models"]
    limits = ["--val_slices", "1", "--val_masks", "1", "--freeze_image_encoder", "True"]
    done = monai_bundle("run", "training", "--config_file", "configs/train.json", *options, *SHORT, *limits)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_training_writes_checkpoints_and_scores(trained):
    assert {path.name for path in (trained / "models").iterdir()} == {"model.pt", "last.pt"}
    summary = json.loads((trained / "eval" / "summary.json").read_text())
    assert set(summary["per_modality"]) == {"CT", "US"} and set(summary["mean"]) == {"dsc", "nsd", "dsc_std", "nsd_std"}
    assert (trained / "eval" / "cases.csv").read_text().count("\n") == 3
    assert list((trained / "eval").glob("events.out.tfevents.*"))


def test_training_changed_the_decoder_and_kept_the_frozen_encoder(trained):
    before, after = build_mcp_medsam(), build_mcp_medsam()
    load_checkpoint(before, lite_medsam_path())
    load_checkpoint(after, trained / "models" / "model.pt")
    for name, value in before.image_encoder.state_dict().items():
        assert torch.equal(value, after.image_encoder.state_dict()[name]), name
    assert not torch.equal(before.mask_decoder.mask_tokens, after.mask_decoder.mask_tokens)
    assert after.components.content_cnn and not after.components.clip_image


@pytest.mark.slow
def test_evaluating_repeats_the_validation_scores(small_set, trained, tmp_path):
    configs = "['configs/train.json','configs/evaluate.json']"
    options = ["--dataset_dir", small_set, "--output_dir", tmp_path, "--ckpt_dir", trained / "models"]
    limits = ["--val_slices", "1", "--val_masks", "1", "--clip", "none", "--num_workers", "0"]
    done = monai_bundle("run", "evaluating", "--config_file", configs, *options, *limits)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "cases.csv").read_text() == (trained / "eval" / "cases.csv").read_text()


def test_inference_on_a_folder_of_npz(trained, tmp_path):
    rng = np.random.default_rng(0)
    inputs = tmp_path / "in"
    inputs.mkdir()
    picture, volume = rng.integers(0, 255, (40, 60, 3), np.uint8), rng.integers(0, 255, (3, 30, 20), np.uint8)
    np.savez(inputs / "2D_US_a.npz", imgs=picture, boxes=[[4, 5, 30, 30], [20, 8, 59, 39]])
    np.savez(inputs / "3D_CT_b.npz", imgs=volume, boxes=[[2, 3, 1, 18, 25, 2]])
    options = ["--dataset_dir", inputs, "--output_dir", tmp_path / "out", "--clip", "none"]
    checkpoint = ["--checkpoint", trained / "models" / "model.pt"]
    done = monai_bundle("run", "--config_file", "configs/inference.json", *options, *checkpoint)
    assert done.returncode == 0, done.stdout + done.stderr
    segs = {path.name: np.load(path)["segs"] for path in (tmp_path / "out").iterdir()}
    assert segs.keys() == {"2D_US_a.npz", "3D_CT_b.npz"}
    assert segs["2D_US_a.npz"].shape == (40, 60) and segs["2D_US_a.npz"].max() <= 2
    assert segs["3D_CT_b.npz"].shape == (3, 30, 20) and not segs["3D_CT_b.npz"][0].any()


@pytest.mark.slow
def test_load_from_another_folder_gives_the_weights(trained, tmp_path):
    """With the small package in the bundle's folder; the release with the real one has its own tests."""
    code = f"""
import monai.bundle, torch
network = monai.bundle.load("bundle", bundle_dir={str(ROOT)!r}, workflow_type="train", source="github",
                            model_file={str(trained / "models" / "model.pt")!r})
weights = torch.load({str(trained / "models" / "model.pt")!r}, weights_only=True)
state = network.state_dict()
assert state.keys() == weights.keys()
assert all(torch.equal(state[name], weights[name]) for name in weights)
assert network.components.content_cnn and not network.components.clip_image
import custom.networks
assert custom.networks.__file__.startswith({str(ROOT)!r})
"""
    done = in_other_folder(code, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_create_workflow_from_another_folder(small_set, trained, tmp_path):
    np.savez(tmp_path / "2D_US_a.npz", imgs=np.zeros((8, 8), np.uint8), boxes=[[1, 1, 5, 5]])
    code = f"""
from monai.bundle import create_workflow
checkpoint = {str(trained / "models" / "model.pt")!r}
for name, kind, data in (("train", "train", {str(small_set)!r}), ("inference", "infer", {str(tmp_path)!r})):
    workflow = create_workflow(config_file={str(BUNDLE)!r} + f"/configs/{{name}}.json", workflow_type=kind, clip="none",
                               checkpoint=checkpoint, dataset_dir=data)
    assert workflow.check_properties() == [], name
    assert workflow.bundle_root == {str(BUNDLE)!r}
    assert type(workflow.network_def).__name__ == "MCPMedSAM"
"""
    done = in_other_folder(code, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--dataset_dir", "nowhere"], "python -m data_prep demo"),
        (["--checkpoint", "nothing.pt"], "nothing.pt: checkpoint: found no file"),
    ],
)
def test_bad_options_end_in_one_line(options, expected, small_set, tmp_path):
    outputs = ["--output_dir", tmp_path, "--ckpt_dir", tmp_path]
    data = [] if "--dataset_dir" in options else ["--dataset_dir", small_set]
    configs = ["--config_file", "configs/train.json", "--clip", "none"]
    done = monai_bundle("run", "training", *configs, *options, *data, *outputs)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and expected in last
    assert "Traceback" not in done.stderr


def test_results_can_be_written_from_the_bundle_s_folder(tmp_path):
    imports = "import custom.inference.result_files; from custom import Predictor"
    code = f"import sys; sys.path.insert(0, {str(BUNDLE)!r}); {imports}"
    done = in_other_folder(code, tmp_path)
    assert done.returncode == 0, done.stderr
