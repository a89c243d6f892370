import copy

import pytest
import torch

from custom.errors import InputError
from custom.networks import build_mcp_medsam
from custom.networks.encoders.tiny_vit import TinyViT

SMALL = {"widths": (8, 16, 20, 40), "depths": (1, 1, 1, 1), "heads": (1, 1, 1, 2)}


# (stages that learn, parts that learn)
@pytest.mark.parametrize("stages, parts", [(0, []), (1, ["stages.3", "neck"]), (4, ["stages", "neck"])])
def test_the_last_stages_and_the_neck_learn(stages, parts):
    encoder = TinyViT(**SMALL)
    encoder.freeze(trained_stages=stages)
    encoder.train()
    for name, parameter in encoder.named_parameters():
        assert parameter.requires_grad == name.startswith(tuple(parts)), name
    for name, module in encoder.named_modules():
        if not any(module.children()):  # containers have no behaviour of their own
            assert module.training == name.startswith(tuple(parts)), name


def test_a_step_changes_nothing_that_is_frozen():
    torch.manual_seed(0)
    encoder = TinyViT(**SMALL)
    encoder.freeze(trained_stages=1)
    before = copy.deepcopy(encoder.state_dict())
    encoder.train()(torch.rand(1, 3, 256, 256)).square().mean().backward()
    torch.optim.SGD((p for p in encoder.parameters() if p.requires_grad), lr=1.0).step()
    changed = {name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith(("stages.3", "neck")) for name in changed)
    assert any("running_mean" in name for name in changed)


def test_frozen_and_trained_part_are_the_encoder():
    encoder = TinyViT(**SMALL).eval()
    image = torch.rand(1, 3, 256, 256)
    expected = encoder(image)
    encoder.freeze(trained_stages=2)
    assert torch.equal(encoder.trained(encoder.frozen(image)), expected)
    assert encoder.frozen(image).shape == (1, 20, 64, 64)  # the output of stage 1, merged


def test_weights_loaded_into_a_frozen_part_take_effect():
    torch.manual_seed(0)
    encoder, other = TinyViT(**SMALL), TinyViT(**SMALL).eval()
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter, std=0.1)  # biases of the attention included, which timm caches
    encoder.freeze(trained_stages=1)
    encoder.train()
    image = torch.rand(1, 3, 256, 256)
    encoder(image)
    encoder.load_state_dict(other.state_dict())
    assert torch.equal(encoder.frozen(image), torch.nn.Sequential(*other.parts[:4])(image))


def test_the_cache_keeps_what_the_frozen_part_gives(tmp_path):
    torch.manual_seed(0)
    options = {"clip_text": False, "clip_image": False, "content_cnn": False, "freeze_image_encoder": True}
    network = build_mcp_medsam(**options, trained_stages=1, embedding_cache=tmp_path).train()
    image = torch.rand(1, 3, 256, 256)
    for _ in range(2):
        network.predict(image).mask_logits.mean().backward()
    assert len(list(tmp_path.iterdir())) == 1
    assert network.image_encoder.stages[3].blocks[0].mlp.fc1.weight.grad.any()
    with torch.no_grad():
        network.eval()
        found = network.encode_image(image)
        network.embedding_cache = None
        torch.testing.assert_close(found, network.encode_image(image), atol=2e-2, rtol=0)  # stored in float16


@pytest.mark.parametrize(
    "options, message",
    [
        ({"trained_stages": 1}, "trained_stages.*freeze_image_encoder"),
        ({"trained_stages": 5, "freeze_image_encoder": True}, "trained_stages: found 5; allowed: 0 to 4"),
    ],
)
def test_wrong_numbers_of_stages(options, message):
    with pytest.raises(InputError, match=message):
        build_mcp_medsam(**options)
