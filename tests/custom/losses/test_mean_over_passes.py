import pytest
import torch

from custom.losses import MCPMedSAMLoss, MeanOverPasses
from custom.networks import MCPMedSAMOutput


@pytest.fixture
def outputs():
    """Three passes of two images with two objects each."""
    torch.manual_seed(0)
    shapes = ((2, 2, 16, 16), (2, 2), (4, 11), (4, 8), (4, 8))
    return [MCPMedSAMOutput(*(torch.randn(shape, requires_grad=True) for shape in shapes)) for _ in range(3)]


@pytest.fixture
def target():
    return {"label": (torch.rand(2, 2, 16, 16) > 0.6).float(), "modality": torch.tensor([3, -1])}


def test_mean_of_the_single_losses(outputs, target):
    loss, single = MeanOverPasses(MCPMedSAMLoss()), MCPMedSAMLoss()
    found = loss(outputs, target)
    logs = []
    for output in outputs:
        single(output, target)
        logs.append(single.log())
    log = loss.log()
    assert found.item() == pytest.approx(sum(line["loss"] for line in logs) / 3, rel=1e-6)
    assert {name: log.pop(name) for name in logs[0]} == pytest.approx(
        {name: sum(line[name] for line in logs) / 3 for name in logs[0]}, rel=1e-6
    )
    assert log == pytest.approx({f"dice after {k}": line["dice"] for k, line in enumerate(logs)}, rel=1e-6)
    found.backward()
    assert all(output.mask_logits.grad.any() and output.iou.grad.any() for output in outputs)
    assert not any(value.requires_grad for value in loss.dice)


def test_one_pass_is_the_loss_itself(outputs, target):
    loss, single = MeanOverPasses(MCPMedSAMLoss()), MCPMedSAMLoss()
    assert torch.equal(loss(outputs[0], target), single(outputs[0], target)) and loss.log() == single.log()
    loss(outputs, target)
    loss(outputs[0], target)
    assert loss.dice == [] and loss.log() == single.log()  # nothing is left of the passes before


def test_no_call_no_log():
    assert MeanOverPasses(MCPMedSAMLoss()).log() == {}
