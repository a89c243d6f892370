"""An exported network says what the network says."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from custom.errors import InputError
from custom.export.__main__ import export
from custom.inference.openvino_backend import OpenVINOBackend
from custom.inference.torch_backend import TorchBackend

SWITCHES = {
    "no prompts": {"modality_embedding": False, "content_cnn": False},
    "embedding and content CNN": {},
}


@pytest.fixture(scope="module", params=SWITCHES, ids=str)
def exported(request, shared_lively_network, tmp_path_factory):
    """A network whose every branch shows, without CLIP, and the folder of its export."""
    network, kept = shared_lively_network, shared_lively_network.components
    network.prompt_encoder.components = replace(kept, clip_text=False, clip_image=False, **SWITCHES[request.param])
    folder = tmp_path_factory.mktemp("export")
    torch.save({"model": network.state_dict()}, folder / "model.pt")
    export(str(folder / "model.pt"), str(folder / "exported"))
    yield network, folder / "exported"
    network.prompt_encoder.components = kept


def decoded(backend, count):
    rng = np.random.default_rng(0)
    images = rng.random((2, 3, 256, 256), dtype=np.float32)
    low = rng.random((count, 2), dtype=np.float32) * 120
    boxes = np.concatenate([low, low + 20 + rng.random((count, 2), dtype=np.float32) * 100], axis=1)
    crops = rng.random((count, 3, 64, 64), dtype=np.float32)
    return backend.decode(backend.encode(images)[1], boxes, 4, crops, None)


@pytest.mark.parametrize("count", [1, 5])
def test_same_outputs_as_pytorch(count, exported):
    network, folder = exported
    expected, found = decoded(TorchBackend(network), count), decoded(OpenVINOBackend(folder), count)
    np.testing.assert_allclose(found.mask_logits, expected.mask_logits, atol=1e-3)
    np.testing.assert_allclose(found.iou, expected.iou, atol=1e-4)
    assert (found.modality_logits is None) == (expected.modality_logits is None)
    if expected.modality_logits is not None:
        np.testing.assert_allclose(found.modality_logits, expected.modality_logits, atol=1e-3)


def test_runs_without_pytorch(exported):
    _, folder = exported
    code = f"""
import sys
import numpy as np
from custom.inference.openvino_backend import OpenVINOBackend
backend = OpenVINOBackend({str(folder)!r})
embedding = backend.encode(np.zeros((1, 3, 256, 256), np.float32))[0]
boxes, crops = np.array([[9, 9, 80, 90]], np.float32), np.zeros((1, 3, 64, 64), np.float32)
assert backend.decode(embedding, boxes, -1, crops, None).mask_logits.shape == (1, 256, 256)
assert not {{"torch", "monai"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_description_tells_where_it_comes_from(exported):
    network, folder = exported
    told = json.loads((folder / "model.json").read_text())
    assert told["checkpoint"] == "model.pt" and told["precision"] == "f32"
    assert told["components"]["content_cnn"] == network.components.content_cnn


def test_bad_options(tmp_path):
    with pytest.raises(InputError, match=r"precision: found 'f16'; allowed: f32, bf16, int8"):
        export("lite_medsam", str(tmp_path / "out"), precision="f16")
    with pytest.raises(InputError, match="calibrate"):
        export("lite_medsam", str(tmp_path / "out"), precision="int8")
    with pytest.raises(InputError):
        OpenVINOBackend(tmp_path / "nothing")
    assert not (tmp_path / "out").exists()
