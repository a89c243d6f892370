"""Started from LiteMedSAM, the new branches change nothing; on random embeddings, without the image encoder."""

import pytest
import torch

from custom.networks import build_mcp_medsam
from custom.networks.prompt_encoder import EncodedPrompts
from custom.prompts import Prompts

WIDTH = 256


@pytest.fixture(autouse=True)
def no_grad():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


@pytest.fixture
def source():
    return torch.randn(2, WIDTH, 8, 8)


def test_tokens_are_zero(lite_network):
    encoder = lite_network.prompt_encoder
    for modality in (torch.tensor([0, 10]), torch.tensor([-1, 3])):
        assert not encoder.modality_token(modality, torch.randn(2, 512)).any()
    assert not encoder.image_mlp(torch.randn(2, 512)).any()


def test_dense_prompt_is_the_no_mask_vector(lite_network):
    encoder = lite_network.prompt_encoder
    dense = encoder.content_cnn(torch.rand(1, 3, 16, 16))
    assert torch.equal(dense, encoder.no_mask_embed.view(1, -1, 1, 1).expand(1, WIDTH, 16, 16))
    assert encoder.no_mask_embed.any()


def test_modality_branch_passes_the_source_through(lite_network, source):
    branch, logits = lite_network.mask_decoder._modality_branch(source, torch.randn(2, 1, WIDTH))
    assert torch.equal(branch, source)
    assert logits.shape == (2, 11) and logits.any()


def test_content_branch_adds_what_it_is_given(lite_network, source):
    token, dense = torch.randn(2, WIDTH), torch.randn(2, WIDTH, 8, 8)
    tokens = {"box": torch.zeros(2, 2, WIDTH), "content": token[:, None]}
    prompts = EncodedPrompts(tokens, None, dense)
    found = lite_network.mask_decoder._content_branch(source, prompts, token[:, None])
    torch.testing.assert_close(found, source + dense + token[:, :, None, None])


def test_join_takes_the_modality_branch(lite_network, source):
    decoder = lite_network.mask_decoder
    joined = decoder.join(torch.cat([source, torch.randn_like(source)], dim=1))
    assert torch.equal(joined, source) and torch.equal(decoder.join_block(source), source)


def test_with_the_content_cnn_alone_masks_are_those_of_lite_medsam(lite_network, switch):
    off = {"clip_text": False, "modality_embedding": False, "clip_image": False}
    embedding, boxes = torch.randn(1, WIDTH, 64, 64), torch.tensor([[[20.0, 30.0, 90.0, 200.0]]])
    plain = switch(lite_network, **off, content_cnn=False).decode(embedding, Prompts(boxes=boxes))
    prompts = Prompts(boxes=boxes, crops=torch.rand(1, 3, 16, 16))
    content = switch(lite_network, **off, content_cnn=True).decode(embedding, prompts)
    torch.testing.assert_close(content.mask_logits, plain.mask_logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(content.iou, plain.iou, atol=1e-4, rtol=0)


def test_a_new_network_starts_alike():
    network = build_mcp_medsam()
    encoder, decoder = network.prompt_encoder, network.mask_decoder
    zero = [encoder.modality_mlp.fc2, encoder.image_mlp.fc2, decoder.film_weight, decoder.film_bias]
    assert not any(parameter.any() for module in zero for parameter in module.parameters())
    blocks = (decoder.modality_block, decoder.content_block, decoder.join_block)
    assert not any(block.conv2.weight.any() for block in blocks)
    assert torch.equal(decoder.join.weight[:, :, 0, 0], torch.eye(WIDTH, 2 * WIDTH))
    assert torch.equal(encoder.content_cnn.head.bias, encoder.no_mask_embed[0])


def test_the_zeros_can_be_learned(lite_network):
    with torch.enable_grad():
        features = torch.randn(1, 512)
        prompts = Prompts(
            boxes=torch.tensor([[[20.0, 30.0, 90.0, 200.0]]]),
            modality=torch.tensor([3]),
            crops=torch.rand(1, 3, 16, 16),
            image_features=features,
            text_features=features,
        )
        output = lite_network.decode(torch.randn(1, WIDTH, 64, 64), prompts)
        encoder, decoder = lite_network.prompt_encoder, lite_network.mask_decoder
        learned = {
            "modality token": encoder.modality_mlp.fc2.weight,
            "content token": encoder.image_mlp.fc2.weight,
            "dense prompt": encoder.content_cnn.head.weight,
            "scale": decoder.film_weight.weight,
            "shift": decoder.film_bias.weight,
            "modality block": decoder.modality_block.conv2.weight,
            "join": decoder.join.weight,
            "join block": decoder.join_block.conv2.weight,
        }
        gradients = torch.autograd.grad(output.mask_logits.square().mean(), list(learned.values()))
    assert [name for name, gradient in zip(learned, gradients, strict=True) if not gradient.any()] == []
