"""A new image encoder is its module and its line in the table of names."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from custom.errors import InputError
from custom.networks import build_mcp_medsam
from custom.networks.embedding import EMBEDDING_SIZE, EMBEDDING_WIDTH
from custom.networks.encoders import ENCODERS
from custom.prompts import Prompts


class Patches(nn.Conv2d):
    """A toy encoder: one convolution over patches, Bx3x256x256 -> Bx256x64x64."""

    input_size = 256

    def __init__(self) -> None:
        side = self.input_size // EMBEDDING_SIZE
        super().__init__(3, EMBEDDING_WIDTH, side, stride=side)


def test_a_new_encoder_is_known_by_its_name(monkeypatch):
    monkeypatch.setitem(ENCODERS, "patches", Patches)
    network = build_mcp_medsam(image_encoder="patches", clip_text=False, clip_image=False)
    assert isinstance(network.image_encoder, Patches)
    output = network.predict(torch.rand(1, 3, 256, 256), Prompts(boxes=torch.tensor([[[9.0, 9.0, 80.0, 60.0]]])))
    assert output.mask_logits.shape == (1, 1, 256, 256)


def test_an_unknown_encoder_is_refused_with_the_names():
    with pytest.raises(InputError, match="image_encoder: found 'patches'; allowed: tiny_vit"):
        build_mcp_medsam(image_encoder="patches")
