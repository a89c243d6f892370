"""Layers of the exported graphs, made from the network's layers, with constants folded into their weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.models.tiny_vit import ConvNorm
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from custom.networks.content_cnn import LEAKY_SLOPE
from custom.networks.mask_decoder import ResidualBlock


def linear(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    """Return a linear layer with these values: weight OxI, bias O."""
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


def linear_after_norm(layer: nn.Linear, norm: nn.LayerNorm) -> nn.Linear:
    """Fold a LayerNorm's scale and shift into the linear layer that follows it."""
    return linear(layer.weight * norm.weight, layer.bias + layer.weight @ norm.bias)


def fused(layer: ConvNorm) -> nn.Conv2d:
    """Fold a batch normalisation into the convolution before it."""
    return fuse_conv_bn_eval(layer.conv, layer.bn)


def to_map(tokens: torch.Tensor, side: int) -> torch.Tensor:
    """Return tokens as a map: BxHWxC -> BxCxHxW, H = W = side."""
    return tokens.transpose(1, 2).unflatten(2, (side, side))


def to_tokens(features: torch.Tensor) -> torch.Tensor:
    """BxCxHxW -> BxHWxC."""
    return features.flatten(2).transpose(1, 2)


class TokenConv(nn.Module):
    """A convolution whose result is tokens: BxCxHxW -> BxHWxC.

    The bias is added to the tokens, so that the change of layout has one consumer: only then does OpenVINO, which keeps
    convolutions channels last, omit the change.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the tokens."""
        conv = self.conv
        without_bias = F.conv2d(features, conv.weight, None, conv.stride, conv.padding, groups=conv.groups)
        return to_tokens(without_bias) + conv.bias


class FusedResidualBlock(nn.Module):
    """``ResidualBlock`` with its batch normalisation fused."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.conv1, self.conv2 = fuse_conv_bn_eval(block.conv1, block.norm1), block.conv2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the refined features, BxCxHxW."""
        return x + self.conv2(F.leaky_relu(self.conv1(x), LEAKY_SLOPE))
