from __future__ import annotations

import pytest
import torch
from torch import nn

from custom.errors import InputError
from custom.networks import build_mcp_medsam
from custom.networks.embedding_cache import EmbeddingCache


class CountingEncoder(nn.Module):
    """Bx3x8x8 -> Bx3x8x8; counts its images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.images = 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.images += len(image)
        return self.conv(image)


def test_each_image_is_encoded_once_and_equals_the_encoder_in_float16(tmp_path):
    encoder, cache = CountingEncoder(), EmbeddingCache(tmp_path / "cache")
    image = torch.rand(3, 3, 8, 8)
    first = cache.encode(encoder, image[:2])
    second = cache.encode(encoder, image.flip(0))  # two known images in another order, and one new
    assert encoder.images == 3
    assert torch.equal(second[[2, 1]], first)
    assert first.dtype == torch.float32 and not first.requires_grad
    assert torch.equal(first, encoder.conv(image[:2]).half().float())


def test_flips_encoders_and_precisions_do_not_mix(tmp_path):
    encoder, image = CountingEncoder(), torch.rand(1, 3, 8, 8)
    cache = EmbeddingCache(tmp_path)
    plain = cache.encode(encoder, image)
    assert torch.equal(cache.encode(encoder, image.flip(-1)), plain.flip(-1))  # a 1x1 convolution commutes with a flip
    with torch.autocast("cpu", torch.bfloat16):
        assert not torch.equal(cache.encode(encoder, image), plain)
    assert not torch.equal(EmbeddingCache(tmp_path).encode(CountingEncoder(), image), plain)
    assert encoder.images == 3
    assert len(list(tmp_path.iterdir())) == 4


def test_network_uses_the_cache(tmp_path):
    options = {"clip_text": False, "clip_image": False, "content_cnn": False}
    network = build_mcp_medsam(**options, freeze_image_encoder=True, embedding_cache=tmp_path).eval()
    image = torch.rand(1, 3, 256, 256)
    first = network.predict(image).mask_logits
    assert torch.equal(network.predict(image).mask_logits, first)
    assert len(list(tmp_path.iterdir())) == 1
    assert not [name for name in network.state_dict() if "cache" in name]


def test_a_learning_encoder_has_no_cache(tmp_path):
    with pytest.raises(InputError, match="embedding_cache.*freeze_image_encoder"):
        build_mcp_medsam(embedding_cache=tmp_path)


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="embedding_cache.*a folder that can be written"):
        EmbeddingCache(tmp_path / "file" / "cache")
