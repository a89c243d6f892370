"""The release zip as its users meet it: downloaded into an empty folder, loaded and run from another one."""

import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from custom import package
from custom.networks import MCPMedSAM, lite_medsam_path, load_checkpoint

BUNDLE = Path(package.__file__).parents[1] / "bundle"


@pytest.fixture(scope="module")
def zip_file(tmp_path_factory) -> Path:
    """A release with LiteMedSAM's weights, the CLIP components off."""
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    shutil.copytree(BUNDLE, folder, ignore=shutil.ignore_patterns("models", "eval", "__pycache__"))
    network = MCPMedSAM(clip_text=False, clip_image=False)
    load_checkpoint(network, lite_medsam_path())
    (folder / "models").mkdir()
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    out = tmp_path_factory.mktemp("release")
    package.build(str(out), bundle=str(folder))
    (path,) = out.iterdir()
    return path


@pytest.fixture
def served(zip_file):
    """The address of a web server on this machine that has the zip."""
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
def test_download_load_and_run(way, zip_file, served, tmp_path):
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
    workflow = monai.bundle.create_workflow(config_file=f"zoo/mcp_medsam/configs/{{name}}.json", workflow_type=kind,
                                            clip="none", dataset_dir="in")
    assert kind == "train" or workflow.check_properties() == [], kind
"""
    (tmp_path / "in").mkdir()
    np.savez(tmp_path / "in" / "2D_US_a.npz", imgs=np.zeros((8, 9), np.uint8), boxes=[[1, 1, 5, 5]])
    done = in_folder(tmp_path, "-c", code)
    assert done.returncode == 0, done.stdout + done.stderr
    if way == "file":  # the same files whichever way they came
        config = "zoo/mcp_medsam/configs/inference.json"
        options = ["--dataset_dir", "in", "--output_dir", "out", "--clip", "none"]
        done = in_folder(tmp_path, "-m", "monai.bundle", "run", "--config_file", config, *options)
        assert done.returncode == 0, done.stdout + done.stderr
        assert np.load(tmp_path / "out" / "2D_US_a.npz")["segs"].shape == (8, 9)
