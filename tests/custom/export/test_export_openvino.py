"""An exported network gives the network's results."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from custom.export.folder import STAGES
from custom.inference.torch_backend import TorchBackend

slow = partial(pytest.param, marks=pytest.mark.slow)

# Name -> switches, content size, mask refinement.
NETWORKS = {
    "no prompts": ({"modality_embedding": False, "content_cnn": False}, 64, False),
    "embedding and content CNN": ({}, 64, False),
    "small crops, refined": ({}, 32, True),
    "embedding, refined": ({"content_cnn": False}, 64, True),
}
QUICK = ("small crops, refined", "embedding, refined")


# Each runs in its own process, as for users: one with PyTorch to export, one without it to compute.
EXPORT = [sys.executable, "-m", "custom.export"]
DECODE = """
import sys
import numpy as np
from custom.inference.openvino_backend import OpenVINOBackend
folder, given, out = sys.argv[1:]
inputs, backend = np.load(given), OpenVINOBackend(folder)
embedding, result = backend.encode(inputs["images"])[1], {}
for count in (1, 5):
    boxes, crops = inputs["boxes"][:count], inputs["crops"][:count]
    decoded = backend.decode(embedding, boxes, 4, crops, None)
    result |= {f"{name}_{count}": value for name, value in decoded._asdict().items() if value is not None}
np.savez(out, **result)
assert not {"torch", "monai"} & set(sys.modules)
"""


@pytest.fixture(
    scope="module",
    params=[name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS],
    ids=str,
)
def exported(request, shared_lively_network, tmp_path_factory):
    """A network in which every branch has an effect, without CLIP, and the folder of its export."""
    network, kept = shared_lively_network, shared_lively_network.components
    switches, network.prompt_encoder.content_size, network.mask_refinement.on = NETWORKS[request.param]
    torch.nn.init.normal_(network.mask_refinement.head.weight)
    network.prompt_encoder.components = replace(kept, clip_text=False, clip_image=False, **switches)
    folder = tmp_path_factory.mktemp("export")
    torch.save({"model": network.state_dict()}, folder / "model.pt")
    program = [*EXPORT, "--checkpoint", folder / "model.pt", "--out", folder / "exported"]
    done = subprocess.run(program, check=True, stderr=subprocess.PIPE, text=True)
    assert [line for line in done.stderr.splitlines() if line in STAGES] == list(STAGES)
    yield network, folder / "exported"
    network.prompt_encoder.components, network.prompt_encoder.content_size = kept, 64
    network.mask_refinement.on = False
    network.mask_refinement.start_as_identity()


def test_same_outputs_as_pytorch_and_without_it(exported, tmp_path):
    network, folder = exported
    rng = np.random.default_rng(0)
    low = rng.random((5, 2), dtype=np.float32) * 120
    boxes = np.concatenate([low, low + 20 + rng.random((5, 2), dtype=np.float32) * 100], axis=1)
    side = network.crop_size
    images, crops = rng.random((2, 3, 256, 256), dtype=np.float32), rng.random((5, 3, side, side), dtype=np.float32)
    np.savez(tmp_path / "given.npz", images=images, boxes=boxes, crops=crops)
    program = [sys.executable, "-c", DECODE, folder, tmp_path / "given.npz", tmp_path / "found.npz"]
    subprocess.run(program, check=True)

    found, backend = np.load(tmp_path / "found.npz"), TorchBackend(network)
    embedding = backend.encode(images)[1]
    for count in (1, 5):
        expected = backend.decode(embedding, boxes[:count], 4, crops[:count], None)
        np.testing.assert_allclose(found[f"mask_logits_{count}"], expected.mask_logits, atol=1e-3)
        np.testing.assert_allclose(found[f"iou_{count}"], expected.iou, atol=1e-4)
        assert (f"modality_logits_{count}" in found) == (expected.modality_logits is not None)
        if expected.modality_logits is not None:
            np.testing.assert_allclose(found[f"modality_logits_{count}"], expected.modality_logits, atol=1e-3)


def test_description_says_where_it_comes_from(exported):
    network, folder = exported
    content = json.loads((folder / "model.json").read_text())
    assert content["checkpoint"] == "model.pt" and content["precision"] == "f32"
    assert content["components"]["content_cnn"] == network.components.content_cnn
    assert content["crop_size"] == network.crop_size


def test_compiled_graphs_are_kept_beside_the_export(exported):
    _, folder = exported
    assert {path.suffix for path in (folder / "compiled").iterdir()} == {".blob"}


@pytest.mark.slow
@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.999])
def test_compiled_graphs_that_were_cut_off(exported, tmp_path, part):
    """By a kill or a full disk while they were stored: the next start gives the same results."""
    _, folder = exported
    shutil.copytree(folder, tmp_path / "exported")
    rng = np.random.default_rng(0)
    given = {"boxes": rng.random((5, 4), np.float32) * 50 + [0, 0, 100, 100]}
    given |= {"images": rng.random((2, 3, 256, 256), np.float32), "crops": rng.random((5, 3, 64, 64), np.float32)}
    np.savez(tmp_path / "given.npz", **{name: value.astype(np.float32) for name, value in given.items()})
    found = []
    for name in ("before", "after"):
        program = [sys.executable, "-c", DECODE, tmp_path / "exported", tmp_path / "given.npz", tmp_path / name]
        subprocess.run(program, check=True)
        found.append(dict(np.load(tmp_path / f"{name}.npz")))
        for blob in (tmp_path / "exported" / "compiled").iterdir():
            os.truncate(blob, int(part * blob.stat().st_size))
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        slow(["--precision", "f16"], "precision: found 'f16'; allowed: f32, bf16, int8"),
        slow(["--precision", "int8"], "calibration: found None; allowed: a prepared data set with --precision int8"),
        slow(["--calibration", "x"], "calibration: found 'x'; allowed: a prepared data set with --precision int8, no"),
        (["--precision", "int8", "--calibration", "nowhere"], "nowhere: dataset_dir: found no such folder"),
    ],
)
def test_bad_options(options, message, tmp_path):
    program = [*EXPORT, "--checkpoint", "lite_medsam", "--out", tmp_path / "out"]
    done = subprocess.run([*program, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
