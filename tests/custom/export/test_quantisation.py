"""An export in 8-bit integers: only the wide convolutions, with nearly the network's masks."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from custom.inference.torch_backend import TorchBackend
from custom.prompts import Prompts

EXPORT = [sys.executable, "-m", "custom.export"]
DECODE = """
import sys
import numpy as np
import openvino
from custom.inference.openvino_backend import OpenVINOBackend
from custom.prompts import Prompts
folder, given, out = sys.argv[1:]
inputs, backend = np.load(given), OpenVINOBackend(folder)
(embedding,) = backend.encode(inputs["images"])
decoded = backend.decode(embedding, Prompts(boxes=inputs["boxes"], crops=inputs["crops"], modality=4))
graphs = {name: openvino.Core().read_model(f"{folder}/{name}.xml") for name in backend.description.graphs}
def steps(name):
    return [n for n in graphs[name].get_ops() if n.get_type_name() == "FakeQuantize"]
readers = {
    name: sorted({r.get_node().get_type_name() for n in steps(name) for r in n.output(0).get_target_inputs()})
    for name in graphs
}
np.savez(out, mask_logits=decoded.mask_logits, **readers)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("content_size", "refined"), [(64, False), (32, True)])
def test_int8(shared_lively_network, switch, prepared_demo, tmp_path, content_size, refined):
    kept = shared_lively_network.components
    network = switch(shared_lively_network, clip_text=False, clip_image=False)
    try:
        network.prompt_encoder.content_size, network.mask_refinement.on = content_size, refined
        torch.save({"model": network.state_dict()}, tmp_path / "model.pt")
        program = [*EXPORT, "--checkpoint", tmp_path / "model.pt", "--out", tmp_path / "exported"]
        program += ["--precision", "int8", "--calibration", prepared_demo.root]
        subprocess.run(program, check=True, capture_output=True)
        rng = np.random.default_rng(0)
        images, crops = rng.random((1, 3, 256, 256), dtype=np.float32), rng.random((2, 3, 64, 64), dtype=np.float32)
        boxes = np.array([[20, 30, 150, 200], [90, 60, 130, 90]], np.float32)
        np.savez(tmp_path / "given.npz", images=images, boxes=boxes, crops=crops)
        program = [sys.executable, "-c", DECODE, tmp_path / "exported", tmp_path / "given.npz", tmp_path / "found.npz"]
        subprocess.run(program, check=True)
        backend = TorchBackend(network)
        prompts = Prompts(boxes=boxes, crops=crops, modality=4)
        expected = backend.decode(backend.encode(images)[0], prompts).mask_logits
    finally:
        network.prompt_encoder.components, network.prompt_encoder.content_size = kept, 64
        network.mask_refinement.on = False

    assert json.loads((tmp_path / "exported" / "model.json").read_text())["precision"] == "int8"
    found = np.load(tmp_path / "found.npz")
    assert not found["encoder"].size
    for name in ("content", "decoder"):
        assert "Convolution" in found[name] and set(found[name]) <= {"Convolution", "ShapeOf"}
    error = found["mask_logits"] - expected
    assert np.sqrt(np.mean(error**2)) < 0.1 * expected.std()
