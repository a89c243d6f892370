import pytest
import torch

from custom.checkpoints import load_checkpoint
from custom.checkpoints.interpolate import interpolate, store
from custom.errors import InputError
from custom.lite_medsam import lite_medsam_path
from custom.networks import build_mcp_medsam
from custom.networks.prompt_switches import PromptComponents


def test_numbers_of_both_are_mixed_and_the_rest_stays():
    ours = {"w": torch.tensor([0.0, 4.0]), "half": torch.ones(2).half(), "new": torch.ones(1), "count": torch.tensor(7)}
    others = {"w": torch.tensor([4.0, 0.0]), "half": torch.zeros(2), "new": torch.ones(3), "count": torch.tensor(1)}
    mixed = interpolate(ours, others, 0.25)
    assert mixed["w"].tolist() == [1, 3] and mixed["half"].tolist() == [0.75, 0.75]
    assert mixed["new"] is ours["new"] and mixed["count"] is ours["count"]


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_towards_lite_medsam(lively_network, tmp_path, share):
    """The new branches and the switches stay; every other weight lies between the two networks'."""
    lively_network.prompt_encoder.components = PromptComponents(clip_text=False, clip_image=False)
    ours, out = tmp_path / "ours.pt", tmp_path / "out.pt"
    torch.save(lively_network.state_dict(), ours)
    store(str(ours), towards="lite_medsam", share=share, out=str(out))
    lite, mixed = build_mcp_medsam(), build_mcp_medsam()
    load_checkpoint(lite, lite_medsam_path())
    assert not load_checkpoint(mixed, out).missing
    assert mixed.prompt_encoder.components == PromptComponents(clip_text=False, clip_image=False)
    for own, other, found in (
        (part(lively_network), part(lite), part(mixed))
        for part in (lambda n: n.mask_decoder.mask_tokens, lambda n: n.image_encoder.neck[0].weight)
    ):
        assert torch.allclose(found, (1 - share) * own + share * other, atol=1e-6)
    cnn = lively_network.prompt_encoder.content_cnn.state_dict()
    assert all(torch.equal(value, cnn[name]) for name, value in mixed.prompt_encoder.content_cnn.state_dict().items())


@pytest.mark.parametrize("share", [-0.1, 1.5, "much"])
def test_share_out_of_range(tmp_path, share):
    with pytest.raises(InputError, match=f"share: found .*{share}.*; allowed: a number from 0 to 1"):
        store("ours.pt", towards="lite_medsam", share=share, out=str(tmp_path / "out.pt"))


def test_only_own_checkpoints_towards_known_ones(lively_network, tmp_path):
    ours, foreign, out = tmp_path / "ours.pt", tmp_path / "foreign.pt", tmp_path / "out.pt"
    torch.save(lively_network.state_dict(), ours)
    torch.save({"weight": torch.ones(1)}, foreign)
    with pytest.raises(InputError, match="lite_medsam.pth: checkpoint: found LiteMedSAM; allowed: MCP-MedSAM for"):
        store(str(lite_medsam_path()), towards="lite_medsam", share=0.1, out=str(out))
    with pytest.raises(InputError, match="foreign.pt: checkpoint: found a checkpoint of another network"):
        store(str(ours), towards=str(foreign), share=0.1, out=str(out))
    assert not out.exists()
