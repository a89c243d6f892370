"""The release zip as users get it: downloaded into an empty folder, loaded and run from another one."""

import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow

from custom import package
from custom.checkpoints import load_checkpoint
from custom.lite_medsam import lite_medsam_path
from custom.networks import build_mcp_medsam

ROOT = Path(package.__file__).parents[1]
BUNDLE = ROOT / "bundle"
SCHEMA = ROOT.parent / "shared" / "reference" / "meta_schema_20240725.json"


@pytest.fixture(scope="module")
def zip_file(tmp_path_factory) -> Path:
    """A release with LiteMedSAM's weights, the CLIP components off."""
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    shutil.copytree(BUNDLE, folder, ignore=shutil.ignore_patterns("models", "eval", "__pycache__"))
    network = build_mcp_medsam(clip_text=False, clip_image=False)
    load_checkpoint(network, lite_medsam_path())
    (folder / "models").mkdir()
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    out = tmp_path_factory.mktemp("release")
    package.build(str(out), bundle=str(folder))
    (path,) = out.iterdir()
    return path


@pytest.fixture
def served(zip_file):
    """The address of a local web server with the zip."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=zip_file.parent)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def in_folder(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run Python in a folder without the repository on its path."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("way", ["file", "http"])
def test_download_and_load(way, zip_file, served, tmp_path):
    url = zip_file.as_uri() if way == "file" else f"{served}/{zip_file.name}"
    code = f"""
import monai.bundle, torch
monai.bundle.download(name="mcp_medsam", bundle_dir="zoo", url={url!r}, progress=False)
weights = torch.load("zoo/mcp_medsam/models/model.pt", weights_only=True)
for kind in ("train", "inference"):
    state = monai.bundle.load("mcp_medsam", bundle_dir="zoo", workflow_type=kind, source="github").state_dict()
    assert state.keys() == weights.keys(), kind
    assert all(torch.equal(state[name], weights[name]) for name in weights), kind
import custom.networks
assert "zoo/mcp_medsam/custom" in custom.networks.__file__
for kind, name in (("train", "train"), ("infer", "inference")):
    monai.bundle.create_workflow(config_file=f"zoo/mcp_medsam/configs/{{name}}.json", workflow_type=kind, clip="none",
                                 dataset_dir="in")
"""
    (tmp_path / "in").mkdir()
    np.savez(tmp_path / "in" / "2D_US_a.npz", imgs=np.zeros((8, 9), np.uint8), boxes=[[1, 1, 5, 5]])
    done = in_folder(tmp_path, "-c", code)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def unpacked(zip_file, tmp_path_factory) -> Path:
    """The folder "configs" of a release in an empty folder."""
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(zip_file) as archive:
        archive.extractall(folder)
    return folder / "mcp_medsam" / "configs"


def test_train_evaluate_and_segment(unpacked, small_set, tmp_path):
    code = f"""
from monai.bundle import run, verify_metadata, verify_net_in_out
configs, schema = {str(unpacked)!r}, {str(SCHEMA)!r}
options = dict(dataset_dir={str(small_set)!r}, ckpt_dir="models", clip="none", num_workers=0, val_slices=1, val_masks=1)
short = dict(batch_size=1, epochs=1, epoch_length=1, freeze_image_encoder=True, checkpoint="lite_medsam")
run("training", config_file=f"{{configs}}/train.json", output_dir="train", **options, **short)
run("evaluating", config_file=[f"{{configs}}/{{n}}.json" for n in ("train", "evaluate")], output_dir="eval", **options)
run(config_file=f"{{configs}}/inference.json", dataset_dir="in", output_dir="out", clip="none")
if {SCHEMA.is_file()}:
    verify_metadata(meta_file=f"{{configs}}/metadata.json", filepath=schema)
verify_net_in_out(net_id="network_def", meta_file=f"{{configs}}/metadata.json",
                  config_file=f"{{configs}}/inference.json", device="cpu")
import custom
assert custom.__file__.startswith(str(configs).removesuffix("configs"))
"""
    (tmp_path / "in").mkdir()
    np.savez(tmp_path / "in" / "2D_US_a.npz", imgs=np.zeros((8, 9), np.uint8), boxes=[[1, 1, 5, 5]])
    done = in_folder(tmp_path, "-c", code)
    assert done.returncode == 0, done.stdout + done.stderr
    assert np.load(tmp_path / "out" / "2D_US_a.npz")["segs"].shape == (8, 9)
    trained, tested = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("train", "eval"))
    assert trained["mean"] == tested["mean"]
    printed = done.stdout + done.stderr
    assert "data shape of network is verified with no error" in printed
    assert "metadata is verified with no error" in printed or not SCHEMA.is_file()


TRAIN, EVALUATE = ("train.json",), ("train.json", "evaluate.json")
WORKFLOWS = {
    TRAIN: "train",
    EVALUATE: "train",
    ("inference.json",): "infer",
    (*TRAIN, "multi_gpu_train.json"): "train",
    (*EVALUATE, "multi_gpu_evaluate.json"): "train",
}


@pytest.mark.parametrize("names", WORKFLOWS, ids=lambda names: names[-1])
def test_properties(names, unpacked, small_set, tmp_path, monkeypatch):
    """Overlays for several processes run as one process here; those of ``ablation/`` have their own tests."""
    process = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 29517}
    for name, value in process.items():
        monkeypatch.setenv(name, str(value))
    np.savez(tmp_path / "2D_US_a.npz", imgs=np.zeros((8, 9), np.uint8), boxes=[[1, 1, 5, 5]])
    dataset = tmp_path if WORKFLOWS[names] == "infer" else small_set
    options = {"clip": "none", "dataset_dir": str(dataset), "output_dir": str(tmp_path), "device": "cpu"}
    workflow = ConfigWorkflow([str(unpacked / name) for name in names], workflow_type=WORKFLOWS[names], **options)
    workflow.initialize()
    assert workflow.check_properties() == []
    workflow.finalize()


def test_no_config_is_left_out(unpacked):
    others = {path.relative_to(unpacked).as_posix() for path in unpacked.glob("*.json")}
    assert others == {name for names in WORKFLOWS for name in names} | {"metadata.json"}
