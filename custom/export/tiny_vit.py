"""The image encoder for export: the same function as ``TinyViT`` with less data movement and computation.

Batch normalisations, the scales and shifts of the LayerNorms before linear layers, and the attention's scale are in the
weights; the attention biases are a table; queries, keys and values come from separate layers, so that nothing is
split; and the projection after the attention leaves out the windows' padding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.models.tiny_vit import MBConv, PatchMerging, TinyVitBlock
from torch import nn

from custom.export.layers import TokenConv, fused, linear, linear_after_norm, to_map, to_tokens
from custom.networks.embedding import EMBEDDING_SIZE, EMBEDDING_WIDTH
from custom.networks.encoders.tiny_vit import TinyViT

#: Side of the feature map in the stages with attention.
_SIDES = (128, 64, 64)


class EncoderGraph(nn.Module):
    """Image encoder: Bx3x256x256 in [0, 1] -> Bx256x64x64.

    Args:
        encoder: the network's encoder in evaluation mode; it is not changed.
    """

    def __init__(self, encoder: TinyViT) -> None:
        super().__init__()
        embed, (first, *stages) = encoder.patch_embed, encoder.stages
        self.embed = nn.Sequential(fused(embed[0]), nn.GELU(), fused(embed[2]))
        self.local = nn.Sequential(*(_InvertedBlock(block) for block in first.blocks))
        layers: list[nn.Module] = [_Merging(first.merge)]
        for stage, side in zip(stages, _SIDES, strict=True):
            layers += [_WindowBlock(block, side) for block in stage.blocks]
            if isinstance(stage.merge, PatchMerging):
                layers.append(_Merging(stage.merge, side))
        self.layers = nn.Sequential(*layers)
        reduce, self.norm1, self.conv, self.norm2 = encoder.neck
        self.reduce = nn.Linear(reduce.in_channels, EMBEDDING_WIDTH, bias=False)
        self.reduce.weight = nn.Parameter(reduce.weight.flatten(1))  # 1x1 convolution: Ox1x1xI -> OxI

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Encode images."""
        tokens = self.reduce(self.layers(self.local(self.embed(image))))
        tokens = to_tokens(self.conv(to_map(_norm(tokens, self.norm1), EMBEDDING_SIZE)))
        return to_map(_norm(tokens, self.norm2), EMBEDDING_SIZE)


class _InvertedBlock(nn.Module):
    """``MBConv`` with its batch normalisations fused: BxCxHxW -> BxCxHxW."""

    def __init__(self, block: MBConv) -> None:
        super().__init__()
        self.expand, self.depthwise, self.project = fused(block.conv1), fused(block.conv2), fused(block.conv3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.gelu(x + self.project(F.gelu(self.depthwise(F.gelu(self.expand(x))))))


class _Merging(nn.Module):
    """``PatchMerging`` into tokens: a map BxCxHxW, or with ``side`` tokens BxHWxC, -> BxH'W'xC'."""

    def __init__(self, merging: PatchMerging, side: int | None = None) -> None:
        super().__init__()
        self.side = side
        self.conv1, self.conv2 = fused(merging.conv1), fused(merging.conv2)
        self.conv3 = TokenConv(fused(merging.conv3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.side is not None:
            x = to_map(x, self.side)
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))


class _WindowBlock(nn.Module):
    """``TinyVitBlock`` on tokens of a square map: BxHWxC -> BxHWxC."""

    def __init__(self, block: TinyVitBlock, side: int) -> None:
        super().__init__()
        attention, mlp = block.attn, block.mlp
        self.side, self.window, self.width = side, block.window_size, block.dim
        self.heads, self.windows = attention.num_heads, -(-side // block.window_size)
        self.padding = self.windows * self.window - side
        # timm normalises a window after padding it with zeros; the normalised value of a padded token is the shift,
        # and with scale and shift in the weights it is zero, so that padding after the normalisation is the same.
        self.eps = attention.norm.eps
        qkv = linear_after_norm(attention.qkv, attention.norm)
        weights = qkv.weight.unflatten(0, (self.heads, 3, -1)).transpose(0, 1)  # 3HDxC -> 3xHxDxC
        biases = qkv.bias.unflatten(0, (self.heads, 3, -1)).transpose(0, 1)
        scales = (attention.scale, 1.0, 1.0)
        self.query, self.key, self.value = (
            linear(weight.flatten(0, 1) * scale, bias.flatten() * scale)
            for weight, bias, scale in zip(weights, biases, scales, strict=True)
        )
        self.register_buffer("bias", attention.attention_biases.detach()[:, attention.attention_bias_idxs])
        self.project = attention.proj
        self.local = TokenConv(fused(block.local_conv))
        self.mlp_eps = mlp.norm.eps
        self.fc1, self.fc2 = linear_after_norm(mlp.fc1, mlp.norm), mlp.fc2

    def _split(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)  # WxLxC -> WxHeadsxLxC/Heads

    def _attend(self, tokens: torch.Tensor) -> torch.Tensor:
        query, key, value = (self._split(layer(tokens)) for layer in (self.query, self.key, self.value))
        out = (query @ key.transpose(2, 3) + self.bias).softmax(dim=3) @ value
        return out.transpose(1, 2).flatten(2)  # WxHeadsxLxC/Heads -> WxLxC

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, w, padded = self.windows, self.window, self.windows * self.window
        y = F.layer_norm(x, (self.width,), eps=self.eps).unflatten(1, (self.side, self.side))
        y = F.pad(y, (0, 0, 0, self.padding, 0, self.padding))
        y = y.reshape(-1, n, w, n, w, self.width).transpose(2, 3).reshape(-1, w * w, self.width)  # to windows
        y = self._attend(y)
        y = y.reshape(-1, n, n, w, w, self.width).transpose(2, 3).reshape(-1, padded, padded, self.width)  # and back
        x = x + self.project(y[:, : self.side, : self.side].flatten(1, 2))
        x = self.local(to_map(x, self.side))
        return x + self.fc2(F.gelu(self.fc1(F.layer_norm(x, (self.width,), eps=self.mlp_eps))))


def _norm(tokens: torch.Tensor, norm: nn.LayerNorm) -> torch.Tensor:
    """Apply a LayerNorm of feature maps to tokens."""
    return F.layer_norm(tokens, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
