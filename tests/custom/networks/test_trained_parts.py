import copy

import pytest
import torch

from custom.errors import InputError
from custom.networks import build_mcp_medsam
from custom.prompts import Prompts

TRAINED = ("prompt_encoder.modality_mlp", "prompt_encoder.point_embed", "mask_correction")


@pytest.fixture(scope="module")
def stepped():
    """A network of which some parts are trained, before and after a training step on a random embedding."""
    torch.manual_seed(0)
    network = build_mcp_medsam(clip_text=False, clip_image=False, trained=TRAINED).train()
    before = copy.deepcopy(network.state_dict())
    prompts = Prompts(boxes=torch.tensor([[20.0, 30.0, 90.0, 200.0]]), crops=torch.rand(1, 3, 16, 16))
    torch.nn.init.normal_(network.prompt_encoder.modality_mlp.fc2.weight)
    before["prompt_encoder.modality_mlp.fc2.weight"] = network.prompt_encoder.modality_mlp.fc2.weight.detach().clone()
    network.decode(torch.randn(1, 256, 64, 64), prompts).mask_logits.square().mean().backward()
    torch.optim.SGD((p for p in network.parameters() if p.requires_grad), lr=1.0).step()
    return network, before


def test_nothing_else_changes(stepped):
    network, before = stepped
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith(TRAINED) for name in changed)  # running statistics included
    for name, parameter in network.named_parameters():
        trained = name.startswith(TRAINED)
        assert parameter.requires_grad is trained and (trained or parameter.grad is None), name


def test_the_rest_stays_in_evaluation(stepped):
    network, _ = stepped
    for name, module in network.named_modules():
        assert module.training == name.startswith(TRAINED), name
    assert not any(module.training for module in network.eval().modules())


@pytest.mark.parametrize("name", ["decoder", "", "prompt_encoder.content"])
def test_a_name_that_is_no_part(name):
    with pytest.raises(InputError, match=f"^arguments: trained: found '{name}'; allowed: image_encoder, ") as error:
        build_mcp_medsam(trained=["mask_decoder", name])
    assert "\n" not in str(error.value) and "mask_correction" in str(error.value)
