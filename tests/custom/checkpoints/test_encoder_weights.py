import pytest
import timm
import torch
from safetensors.torch import save_file

from custom.checkpoints import load_checkpoint
from custom.checkpoints.encoder_weights import convert_timm, lite_medsam_with_encoder
from custom.checkpoints.loading import LITE_LAYOUT
from custom.errors import InputError
from custom.lite_medsam import lite_medsam_path
from custom.networks import build_mcp_medsam
from custom.networks.encoders.tiny_vit import TinyViT


def lively(name):
    """A network of timm in which no tensor is constant."""
    torch.manual_seed(1)
    network = timm.create_model(name, num_classes=10).eval()
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.ndim == 0:
                value.fill_(7)  # batches seen by a norm
            else:
                value.copy_(torch.rand(value.shape) + 0.5 if value.ndim == 1 else 0.1 * torch.randn(value.shape))
    return network


@pytest.fixture(scope="module")
def natural():
    return lively("tiny_vit_5m_224")


def test_blocks_and_mergings_compute_what_timm_computes(natural):
    encoder = TinyViT()
    encoder.load_state_dict(convert_timm(natural.state_dict(), encoder.state_dict()))
    encoder.eval()
    x = torch.randn(1, 64, 56, 56)
    with torch.no_grad():
        expected = natural.stages[2].downsample(natural.stages[1](natural.stages[0](x)))
        torch.testing.assert_close(encoder.stages[1](encoder.stages[0](x)), expected)
        y = torch.randn(1, 160, 14, 14)
        torch.testing.assert_close(
            encoder.stages[2].blocks(y.permute(0, 2, 3, 1)), natural.stages[2].blocks(y.permute(0, 2, 3, 1))
        )
        # The last merging has another stride here, so at the even places both have the same input.
        merged = encoder.stages[2].merge(y)[:, :, ::2, ::2]
        torch.testing.assert_close(merged, natural.stages[3].downsample(y))


def test_what_timm_has_not_is_kept(natural):
    before = TinyViT().state_dict()
    after = convert_timm(natural.state_dict(), before)
    kept = {name for name in before if torch.equal(before[name], after[name])}
    assert after.keys() == before.keys()
    assert kept == {name for name in before if name.startswith(("patch_embed.", "neck."))}


@pytest.mark.parametrize("name", ["tiny_vit_11m_224", "resnet18"])
def test_other_networks(name):
    with pytest.raises(InputError, match=r"x: image encoder: found .*; allowed: the weights of timm's tiny_vit_5m_224"):
        convert_timm(timm.create_model(name).state_dict(), TinyViT().state_dict(), source="x")


def test_start_from_scratch(tmp_path, lite_network):
    paths = [lite_medsam_with_encoder("scratch", tmp_path / "new" / f"{n}.pt", seed=s) for n, s in enumerate((3, 3, 4))]
    assert paths[0] == str(tmp_path / "new" / "0.pt")
    networks = [build_mcp_medsam().eval() for _ in paths]
    for network, path in zip(networks, paths, strict=True):
        assert load_checkpoint(network, path).layout == LITE_LAYOUT
    states = [network.image_encoder.state_dict() for network in networks]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    weight = "stages.2.blocks.0.mlp.fc1.weight"
    assert not torch.equal(states[0][weight], states[2][weight]) and states[0][weight].std() < 0.03
    assert not torch.equal(states[0][weight], lite_network.image_encoder.state_dict()[weight])
    decoder = networks[0].mask_decoder.state_dict()  # everything else is from LiteMedSAM
    for name, value in lite_network.mask_decoder.state_dict().items():
        if name.startswith(("transformer.", "upscale.", "mask_mlp.", "iou_head.", "mask_tokens")):
            assert torch.equal(decoder[name], value)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_start_from_a_file_of_natural_weights(natural, tmp_path, suffix):
    file = tmp_path / f"weights{suffix}"
    tensors = natural.state_dict()
    save_file(tensors, file) if suffix == ".safetensors" else torch.save(tensors, file)
    network = build_mcp_medsam()
    load_checkpoint(network, lite_medsam_with_encoder(str(file), tmp_path / "start.pt"))
    bias = network.image_encoder.stages[1].blocks[0].attn.attention_biases
    assert torch.equal(bias, natural.stages[1].blocks[0].attn.attention_biases)


def test_drawing_leaves_the_generator_alone(tmp_path):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    lite_medsam_with_encoder("scratch", tmp_path / "start.pt")
    assert torch.equal(torch.rand(1), expected)


def test_weights_that_cannot_be_had(tmp_path, monkeypatch):
    monkeypatch.setattr("custom.networks.clip._hub_answers", lambda endpoint: False)
    with pytest.raises(InputError, match=r"image encoder: timm/nothing: found not in the cache, .* does not answer"):
        lite_medsam_with_encoder("timm/nothing", tmp_path / "start.pt")
    with pytest.raises(InputError, match="image encoder: /no/file: found no folder /no/file; allowed: scratch, a hub"):
        lite_medsam_with_encoder("/no/file", tmp_path / "start.pt")
    assert not (tmp_path / "start.pt").exists() and lite_medsam_path().is_file()


class Unwanted:
    """Unpickling it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_weights_with_code_are_not_run(tmp_path):
    torch.save({"state_dict": {"a": Unwanted(tmp_path / "made")}}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="image encoder"):
        lite_medsam_with_encoder(str(tmp_path / "w.pth"), tmp_path / "out.pth")
    assert not (tmp_path / "made").exists()
