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
from custom.prompts import NEGATIVE, NO_BOX, NO_POINT, POSITIVE, Prompts

slow = partial(pytest.param, marks=pytest.mark.slow)

# Name -> switches, content size, mask refinement, clicks: none, correcting masks, or also prompting the decoder.
NETWORKS = {
    "no prompts": ({"modality_embedding": False, "content_cnn": False}, 64, False, ""),
    "embedding and content CNN": ({}, 64, False, ""),
    "small crops, refined": ({}, 32, True, ""),
    "embedding, refined": ({"content_cnn": False}, 64, True, ""),
    "corrected by clicks": ({}, 32, True, "correction"),
    "clicks as tokens": ({"content_cnn": False}, 64, True, "tokens"),
}
QUICK = ("small crops, refined", "corrected by clicks", "clicks as tokens")


# Each runs in its own process, as for users: one with PyTorch to export, one without it to compute.
EXPORT = [sys.executable, "-m", "custom.export"]
DECODE = """
import sys
import numpy as np
from custom.inference.openvino_backend import OpenVINOBackend
from custom.prompts import Prompts
folder, given, out = sys.argv[1:]
inputs, backend = dict(np.load(given)), OpenVINOBackend(folder)
embedding, cases, result = backend.encode(inputs.pop("images"))[1], {}, {}
for name, value in inputs.items():
    case, field = name.split("/")
    cases.setdefault(case, {"modality": 4})[field] = value
for case, fields in cases.items():
    prompts = Prompts(**fields)
    decoded = {case: backend.decode(embedding, prompts)}
    content = backend.encode_content(prompts.crops)
    if content is not None:
        result[f"{case}/content"] = content
        decoded[f"{case}, content given"] = backend.decode(embedding, prompts._replace(content=content, crops=None
            if "crops" not in backend.description.graphs["decoder"]["inputs"] else prompts.crops))
    if prompts.correcting:
        answer = backend.decode(embedding, prompts._replace(views=None, view_boxes=None))
        decoded[f"{case}, answer"] = answer
        used = embedding if backend.click_tokens else None
        decoded[f"{case}, answer given"] = backend.decode(used, prompts, answer)
    for name, values in decoded.items():
        result |= {f"{name}/{field}": value for field, value in values._asdict().items() if value is not None}
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
    encoder, correction = network.prompt_encoder, network.mask_correction
    switches, encoder.content_size, network.mask_refinement.on, clicks = NETWORKS[request.param]
    correction.on, encoder.click_tokens = bool(clicks), clicks == "tokens"
    torch.manual_seed(0)
    torch.nn.init.normal_(network.mask_refinement.head.weight)
    for changed in (correction.head.weight, correction.iou_head.weight, encoder.mask_scale):
        torch.nn.init.normal_(changed, std=0.2)
    encoder.components = replace(kept, clip_text=False, clip_image=False, **switches)
    folder = tmp_path_factory.mktemp("export")
    torch.save({"model": network.state_dict()}, folder / "model.pt")
    program = [*EXPORT, "--checkpoint", folder / "model.pt", "--out", folder / "exported"]
    done = subprocess.run(program, check=True, stderr=subprocess.PIPE, text=True)
    assert [line for line in done.stderr.splitlines() if line in STAGES] == list(STAGES)
    yield network, folder / "exported"
    encoder.components, encoder.content_size, encoder.click_tokens = kept, 64, False
    torch.nn.init.zeros_(encoder.mask_scale)
    for part in (network.mask_refinement, correction):
        part.on = False
        part.start_as_identity()


def prompts_of(network):
    """Boxes alone; and, if the network takes clicks, all that can be said, also of objects without a box."""
    rng = np.random.default_rng(0)
    low = rng.random((5, 2)) * 120
    boxes = np.concatenate([low, low + 20 + rng.random((5, 2)) * 100], axis=1).astype(np.float32)
    crops = rng.random((5, 3, network.crop_size, network.crop_size), dtype=np.float32)
    cases = {"one": Prompts(boxes=boxes[:1], crops=crops[:1]), "five": Prompts(boxes=boxes, crops=crops)}
    if not network.takes_clicks:
        return cases
    clicks = Prompts(
        boxes=boxes[:3],
        points=(rng.random((3, 2, 2)) * 255).astype(np.float32),
        point_labels=np.array([[POSITIVE, NEGATIVE], [POSITIVE, NO_POINT], [NO_POINT, NO_POINT]]),
        crops=crops[:3],
        crop_boxes=boxes[:3],
        views=rng.random((3, 3, 128, 128), dtype=np.float32),
        view_boxes=boxes[:3] + np.array([-9, -9, 9, 9], np.float32),
    )
    masks = rng.normal(size=(3, 256, 256)).astype(np.float32) * np.array([[[1]], [[0]], [[5]]], np.float32)
    boxless = boxes[:3].copy()
    boxless[1] = NO_BOX
    return cases | {
        "clicks": clicks,
        "padded": clicks._replace(
            points=np.pad(clicks.points, [(0, 0), (0, 9), (0, 0)]),
            point_labels=np.pad(clicks.point_labels, [(0, 0), (0, 9)], constant_values=NO_POINT),
        ),
        "clicks and masks": clicks._replace(masks=masks),
        "masks": clicks._replace(points=None, point_labels=None, masks=masks),
        "no box": clicks._replace(boxes=boxless, masks=masks),
    }


def test_same_outputs_as_pytorch_and_without_it(exported, tmp_path):
    network, folder = exported
    images = np.random.default_rng(1).random((2, 3, 256, 256), dtype=np.float32)
    cases = prompts_of(network)
    fields = {f"{case}/{name}": value for case, given in cases.items() for name, value in given._asdict().items()}
    given = {name: value for name, value in fields.items() if value is not None}
    np.savez(tmp_path / "given.npz", images=images, **given)
    program = [sys.executable, "-c", DECODE, folder, tmp_path / "given.npz", tmp_path / "found.npz"]
    subprocess.run(program, check=True)

    found, backend = dict(np.load(tmp_path / "found.npz")), TorchBackend(network)
    embedding = backend.encode(images)[1]
    kinds = {name.partition("/")[0] for name in found}
    assert kinds >= set(cases) and (("clicks, answer given" in kinds) == network.takes_clicks)
    for case, prompts in cases.items():
        expected = backend.decode(embedding, prompts._replace(modality=4))._asdict()
        tolerance = {"mask_logits": 1e-3, "iou": 1e-4, "modality_logits": 1e-3}
        unviewed = backend.decode(embedding, prompts._replace(modality=4, views=None, view_boxes=None))._asdict()
        for kind in kinds & {case, f"{case}, content given", f"{case}, answer", f"{case}, answer given"}:
            for name, value in (unviewed if kind.endswith(", answer") else expected).items():
                assert (f"{kind}/{name}" in found) == (value is not None)
                if value is not None:
                    same = np.testing.assert_allclose
                    same(found[f"{kind}/{name}"], value, atol=tolerance[name], err_msg=f"{kind}, {name}")
        content = backend.encode_content(prompts.crops)
        assert (f"{case}/content" in found) == (content is not None)
        if content is not None:
            np.testing.assert_allclose(found[f"{case}/content"], content, atol=1e-3)


def test_description_says_where_it_comes_from(exported):
    network, folder = exported
    content = json.loads((folder / "model.json").read_text())
    assert content["checkpoint"] == "model.pt" and content["precision"] == "f32"
    assert content["components"]["content_cnn"] == network.components.content_cnn
    assert content["crop_size"] == network.crop_size
    takes = (content["takes_clicks"], content["click_tokens"])
    assert takes == (network.takes_clicks, network.prompt_encoder.click_tokens)


def test_graphs_and_inputs(exported):
    """Weights without clicks have the inputs of boxes alone."""
    network, folder = exported
    graphs = json.loads((folder / "model.json").read_text())["graphs"]
    assert {path.stem for path in folder.glob("*.xml")} == set(graphs)
    assert ("content" in graphs) == network.components.content_cnn
    assert ("correction" in graphs) == network.mask_correction.on
    assert ("click_decoder" in graphs) == network.takes_clicks
    inputs = set(graphs["decoder"]["inputs"])
    assert ({"points", "point_labels"} <= inputs) == network.prompt_encoder.click_tokens
    assert ("masks" in inputs) == network.prompt_encoder.click_tokens
    if not network.takes_clicks:
        assert inputs <= {"embedding", "boxes", "modality", "content", "crops"}


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
    given = {"five/boxes": rng.random((5, 4), np.float32) * 50 + [0, 0, 100, 100]}
    given |= {"images": rng.random((2, 3, 256, 256), np.float32), "five/crops": rng.random((5, 3, 64, 64), np.float32)}
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
