import pytest
import torch

from custom.checkpoints import load_checkpoint
from custom.checkpoints.half_precision import SMALLEST, halve, store
from custom.errors import InputError
from custom.lite_medsam import lite_medsam_path
from custom.networks import build_mcp_medsam


def test_large_tensors_are_rounded_and_small_ones_stay():
    large, small = torch.randn(SMALLEST), torch.randn(SMALLEST - 1)
    counter = torch.arange(SMALLEST)
    halved = halve({"large": large, "small": small, "counter": counter})
    assert torch.equal(halved["large"], large.half())
    assert halved["small"] is small and halved["counter"] is counter


@pytest.mark.parametrize("number", [7e4, float("inf"), float("nan")])
def test_no_number_is_lost(number):
    with pytest.raises(InputError, match="c.pt: w: found a number beyond float16; allowed: up to 65504"):
        halve({"w": torch.full((SMALLEST,), number)}, source="c.pt")


def test_stored_weights_load_and_segment_alike(lively_network, tmp_path):
    whole, half = tmp_path / "whole.pt", tmp_path / "half.pt"
    torch.save({"model": lively_network.state_dict(), "epoch": 3}, whole)
    store(str(whole), out=str(half))
    assert half.stat().st_size < 0.52 * whole.stat().st_size
    network = build_mcp_medsam().eval()
    report = load_checkpoint(network, half)
    assert not report.missing and not report.left_out
    assert {value.dtype for value in network.state_dict().values() if value.is_floating_point()} == {torch.float32}
    image = torch.rand(1, 3, 256, 256)
    with torch.no_grad():
        expected, found = lively_network(image), network(image)
    assert (found - expected).abs().max() < 1e-2 * expected.abs().max()


def test_only_own_checkpoints(tmp_path):
    with pytest.raises(InputError, match="lite_medsam.pth: checkpoint: found LiteMedSAM; allowed: MCP-MedSAM for"):
        store(str(lite_medsam_path()), out=str(tmp_path / "half.pt"))
    assert not list(tmp_path.iterdir())
