"""The same masks from the bundle, in one process and in two, the command line, and the runtime without PyTorch."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "bundle"
CONFIG = ["run", "--config_file", "configs/inference.json", "--clip", "none"]
pytestmark = pytest.mark.slow


def run(*command: object, cwd: Path = ROOT) -> None:
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def checkpoint(shared_lite_network, tmp_path_factory):
    """LiteMedSAM's weights with the project's own prompts on, so that masks lie on objects of the picture."""
    kept = shared_lite_network.components
    shared_lite_network.prompt_encoder.components = type(kept)(clip_text=False, clip_image=False)
    path = tmp_path_factory.mktemp("checkpoint") / "model.pt"
    torch.save({"model": shared_lite_network.state_dict()}, path)
    shared_lite_network.prompt_encoder.components = kept
    return path


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Three pictures and two volumes, with one box or several."""
    folder = tmp_path_factory.mktemp("inputs")
    eye, coins = data.retina()[400:900, 200:800], data.coins()
    np.savez(folder / "2D_Fundus_eye.npz", imgs=eye, boxes=[[30, 30, 330, 330], [200, 100, 400, 300]])
    np.savez(folder / "2D_Microscopy_coins.npz", imgs=coins, boxes=[[18, 90, 70, 140]])
    np.savez(folder / "other.npz", imgs=coins[:200, :200], boxes=[[20, 20, 80, 80], [100, 90, 170, 140]])
    volume = np.stack([coins[z : z + 120, :150] for z in range(4)])
    np.savez(folder / "3D_CT_a.npz", imgs=volume, boxes=[[15, 80, 0, 70, 119, 3], [80, 20, 1, 130, 70, 2]])
    np.savez(folder / "3D_MR_b.npz", imgs=volume[:1], boxes=[[80, 20, 0, 130, 70, 0]])
    return folder


@pytest.fixture(scope="module")
def bundle_masks(checkpoint, inputs, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundle")
    options = ["--dataset_dir", inputs, "--output_dir", out, "--checkpoint", checkpoint]
    run(sys.executable, "-m", "monai.bundle", *CONFIG, *options, cwd=BUNDLE)
    return masks(out)


def masks(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: np.load(path)["segs"] for path in sorted(folder.glob("*.npz"))}


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys() and len(found) == 5
    for name, labels in expected.items():
        assert labels.any(), name
        np.testing.assert_array_equal(found[name], labels, err_msg=name)


def test_two_processes(bundle_masks, checkpoint, inputs, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = ["torch.distributed.run", "--nproc_per_node", 2, "--master_port", port]
    options = ["--dataset_dir", inputs, "--output_dir", tmp_path, "--checkpoint", checkpoint]
    run(sys.executable, "-m", *torchrun, "-m", "monai.bundle", *CONFIG, *options, cwd=BUNDLE)
    assert_same(masks(tmp_path), bundle_masks)


def test_command_line(bundle_masks, checkpoint, inputs, tmp_path):
    run(sys.executable, "-m", "custom.segment", inputs, "--out", tmp_path, "--checkpoint", checkpoint, "--clip", "none")
    assert_same(masks(tmp_path), bundle_masks)


def test_runtime_without_pytorch(bundle_masks, checkpoint, inputs, tmp_path):
    exported = tmp_path / "exported"
    run(sys.executable, "-m", "custom.export", "--checkpoint", checkpoint, "--out", exported)
    without = "import runpy, sys; sys.modules |= dict.fromkeys(['torch', 'monai']); sys.argv = sys.argv[1:]; "
    program = [sys.executable, "-c", without + "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"]
    options = ["--out", tmp_path / "out", "--backend", "openvino", "--model", exported]
    run(*program, "custom.segment", inputs, *options)
    assert_same(masks(tmp_path / "out"), bundle_masks)
