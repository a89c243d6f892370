"""Clicks on a real MONAI Label server, with weights that take them: untrained, but not without effect."""

import json
from copy import deepcopy
from io import BytesIO

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

pytestmark = pytest.mark.slow

SHAPE = (48, 40, 8)
ROI = [11, 31, 9, 25, 2, 5]
MR = {"modality": "MR", "roi": ROI}


@pytest.fixture(scope="module")
def checkpoint(shared_lite_network, tmp_path_factory):
    """LiteMedSAM's weights with a random correction of masks."""
    torch.manual_seed(0)
    network = deepcopy(shared_lite_network)
    correction = network.mask_correction
    correction.on = True
    for head in (correction.head, correction.iou_head):
        torch.nn.init.normal_(head.weight, std=0.5)
    path = tmp_path_factory.mktemp("weights") / "clicks.pt"
    torch.save(network.state_dict(), path)
    return path


def bright():
    x, y, z = np.ogrid[:48, :40, :8]
    return ((x - 21) / 9) ** 2 + ((y - 17) / 7) ** 2 + ((z - 3.5) / 4) ** 2 < 1


@pytest.fixture(scope="module")
def server(start_server, checkpoint, tmp_path_factory):
    studies = tmp_path_factory.mktemp("studies")
    volume = np.random.default_rng(0).normal(20, 5, SHAPE)
    volume[bright()] = 140
    nib.save(nib.Nifti1Image(volume.astype(np.float32), np.diag([0.8, 0.9, 3.0, 1.0])), studies / "case.nii.gz")
    with start_server(studies, {"checkpoint": checkpoint, "clip": "none", "backend": "torch"}) as server:
        yield server


@pytest.mark.parametrize("dimension", [2, 3])
def test_a_click_changes_the_mask_only(server, tmp_path, dimension):
    box = MR | {"slice": 4} if dimension == 2 else MR
    clicked = box | {"foreground": [], "background": [[28, 20, 4]]}
    first, second = (server.answer(dimension, "case", params) for params in (box, clicked))
    assert first["boxes"][0]["box"] == second["boxes"][0]["box"] and first["label_names"] == second["label_names"]
    assert second["latencies"]["encode"] < 0.05
    masks = [np.asarray(server.volume(tmp_path, dimension, "case", params).dataobj) for params in (box, clicked, box)]
    assert (masks[0] != masks[1])[:, :, 4].any() and np.array_equal(masks[0], masks[2])
    assert all(mask.shape == SHAPE and set(np.unique(mask)) <= {0, 1} for mask in masks)
    assert dimension == 3 or not np.delete(masks[1], 4, axis=2).any()


def test_clicks_alone_on_a_picture(server):
    pixels = np.full((120, 160), 40, np.uint8)
    pixels[35:76, 44:97] = 190
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    masks = []
    for background in ([], [[10, 10]]):
        params = {"foreground": [[70, 55], [60, 50]], "background": background, "modality": "US"}
        status, content = server.infer(2, None, params, output="image", png=stream.getvalue())
        assert status == 200, content
        masks.append(np.asarray(Image.open(BytesIO(content))))
    assert masks[0].shape == masks[1].shape == (120, 160) and (masks[0] != masks[1]).any()
    found = server.answer(2, None, {"foreground": [[70, 55]], "modality": "US"}, png=stream.getvalue())
    assert found["boxes"][0]["box"] is None


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"foreground": [[20, 17, 4]]}, "a box or ROI around the object first"),
        (MR | {"foreground": [[20, 17, 9]]}, "z 0 to 7"),
        (MR | {"background": [[20, 17, 7]]}, "a slice of the box, 2 to 5"),
        (MR | {"background": [[20, 17]]}, "[x, y, z] in a volume"),
        (MR | {"foreground": ["a"]}, "foreground[0]"),
    ],
)
def test_bad_clicks(server, params, message):
    status, content = server.infer(3, "case", params)
    detail = json.loads(content)["detail"]
    assert status == 400 and message in detail and "\n" not in detail


def test_the_tasks_are_interactive(server):
    """Clients offer foreground, background and the ROI for this type."""
    models = json.loads(server.call("GET", "/info/")[1])["models"]
    assert {model["type"] for model in models.values()} == {"deepgrow"}
