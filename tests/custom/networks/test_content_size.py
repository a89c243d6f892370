import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import roi_align

from custom.checkpoints import load_checkpoint
from custom.errors import InputError
from custom.networks import build_mcp_medsam
from custom.networks.prompt_encoder import PromptEncoder
from custom.prompts import Prompts

OFF = {"clip_text": False, "clip_image": False}


@pytest.fixture
def small_crops(lively_network):
    lively_network.prompt_encoder.content_size = 32
    yield lively_network
    lively_network.prompt_encoder.content_size = 64


def test_crops_of_the_networks_own_frame_have_the_size(small_crops, switch):
    network = switch(small_crops, **OFF)
    image, boxes = torch.rand(1, 3, 256, 256), torch.tensor([[[10.0, 20.0, 73.0, 99.0]]])
    crop = roi_align(image, [torch.tensor([[10.0, 20.0, 74.0, 100.0]])], output_size=32, aligned=True)
    with torch.no_grad():
        assert torch.equal(network(image, Prompts(boxes=boxes)), network(image, Prompts(boxes=boxes, crops=crop)))


def test_the_dense_prompt_covers_the_embedding(small_crops):
    encoder, crop = small_crops.prompt_encoder, torch.rand(1, 3, 32, 32)
    prompts = Prompts(boxes=torch.tensor([[0.0, 0.0, 9.0, 9.0]]), modality=torch.tensor([0]), crops=crop)
    with torch.no_grad():
        dense = encoder(prompts).dense
        expected = F.interpolate(encoder.content_cnn(crop), scale_factor=2, mode="bilinear")
    assert dense.shape == (1, 256, 64, 64)
    torch.testing.assert_close(dense, expected)


def test_checkpoints_tell_it():
    state = build_mcp_medsam(**OFF, content_size=32).prompt_encoder.state_dict()
    other = build_mcp_medsam().prompt_encoder
    other.load_state_dict(state)
    assert other.content_size == 32 and other.components.content_cnn and not other.components.clip_text


def test_older_checkpoints_have_the_published_one():
    encoder = build_mcp_medsam(content_size=32).prompt_encoder
    PromptEncoder.set_extra_state(encoder, torch.tensor([0, 1, 0, 1], dtype=torch.uint8))
    assert encoder.content_size == 64 and encoder.components.modality_embedding


@pytest.mark.parametrize("size", [0, 256])
def test_sizes_that_cannot_be(size):
    with pytest.raises(InputError, match=f"content_size: found {size}; allowed: 1 to 255"):
        build_mcp_medsam(content_size=size)


def test_older_checkpoint_files_load(tmp_path):
    tensors = build_mcp_medsam(**OFF).state_dict()
    tensors["prompt_encoder._extra_state"] = tensors["prompt_encoder._extra_state"][:4]
    torch.save(tensors, tmp_path / "model.pt")
    network = build_mcp_medsam()
    assert not load_checkpoint(network, tmp_path / "model.pt").missing
    assert not network.components.clip_text and network.prompt_encoder.content_size == 64
