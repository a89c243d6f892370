"""The two-way transformer for export: its large projections are folded into the few tokens.

In every attention between tokens and image, one side has T tokens (nine and the clicks), the other 4096 positions. A
score is (A t) . (B x) = (B' A t) . x, with B' the transpose: projecting each token once for every head costs less than
projecting all positions, and the products use the image unchanged. The same holds for the values and the output.
"""

from __future__ import annotations

import torch
from torch import nn

from custom.export.layers import linear
from custom.networks.two_way_transformer import Attention, TwoWayBlock, TwoWayTransformer


class TwoWayGraph(nn.Module):
    """``TwoWayTransformer`` on tokens.

    Args:
        transformer: the network's.
        answers: indices of the tokens to return.
    """

    def __init__(self, transformer: TwoWayTransformer, *, answers: list[int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_TwoWayBlock(block) for block in transformer.blocks)
        self.final, self.norm = _TokensToImage(transformer.final_attn_token_to_image), transformer.norm_final
        self.answers = answers

    def forward(
        self, tokens: torch.Tensor, image: torch.Tensor, image_pe: torch.Tensor, padding: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Join image and prompts.

        Args:
            tokens: NxTxC.
            image: NxLxC, or 1xLxC if all N boxes share it.
            image_pe: positional encoding, 1xLxC.
            padding: added to the scores of each token, NxT: a large negative number where nothing attends to it.

        Returns:
            the requested tokens NxAxC and the image NxLxC.
        """
        token_pe = tokens
        for block in self.blocks:
            tokens, image = block(tokens, image, token_pe, image_pe, padding)
        tokens, token_pe = tokens[:, self.answers], token_pe[:, self.answers]
        return self.norm(tokens + self.final(tokens + token_pe, image + image_pe, image)), image


class _TwoWayBlock(nn.Module):
    """``TwoWayBlock`` with folded attentions between tokens and image."""

    def __init__(self, block: TwoWayBlock) -> None:
        super().__init__()
        self.first, self.mlp = block.first, block.mlp
        self.self_attn = _AmongTokens(block.self_attn)
        self.norm1, self.norm2, self.norm3, self.norm4 = block.norm1, block.norm2, block.norm3, block.norm4
        self.to_image = _TokensToImage(block.cross_attn_token_to_image)
        self.to_tokens = _ImageToTokens(block.cross_attn_image_to_token)

    def forward(
        self,
        tokens: torch.Tensor,
        image: torch.Tensor,
        token_pe: torch.Tensor,
        image_pe: torch.Tensor,
        padding: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens, padding)
        else:
            queries = tokens + token_pe
            tokens = tokens + self.self_attn(queries, queries, tokens, padding)
        tokens = self.norm1(tokens)
        placed = image + image_pe
        tokens = self.norm2(tokens + self.to_image(tokens + token_pe, placed, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        return tokens, self.norm4(image + self.to_tokens(placed, tokens + token_pe, tokens, padding))


class _AmongTokens(nn.Module):
    """Attention among the tokens, without matrix products.

    OpenVINO (2026.4) fuses the attention of so few tokens into one operation and then computes it wrongly in bfloat16;
    element by element it does not fuse them.
    """

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads, self.out = attention.heads, attention.out_proj
        self.query, self.key, self.value = attention.q_proj, attention.k_proj, attention.v_proj

    def forward(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, padding: torch.Tensor | None
    ) -> torch.Tensor:
        """Attend: NxTxC each, padding NxT; returns NxTxC."""
        query = _split(self.query(queries), self.heads).unsqueeze(3)  # NxHxTx1xD
        key = _split(self.key(keys), self.heads).unsqueeze(2)  # NxHx1xTxD
        value = _split(self.value(values), self.heads).unsqueeze(2)
        scores = (query * key).sum(dim=4) * query.shape[-1] ** -0.5  # NxHxTxT
        if padding is not None:
            scores = scores + padding[:, None, None]
        out = (scores.softmax(dim=3).unsqueeze(4) * value).sum(dim=3)  # NxHxTxTxD -> NxHxTxD
        return self.out(out.transpose(1, 2).flatten(2))  # NxHxTxD -> NxTxHD


class _TokensToImage(nn.Module):
    """Attention from T tokens to L positions, keys and values not projected.

    The bias of the keys adds the same to all scores of a token and cancels in the softmax; the bias of the values
    passes through it, since its weights sum to one, and is added to the output's bias.
    """

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads = attention.heads
        size = attention.q_proj.out_features // self.heads
        self.query = linear(attention.q_proj.weight * size**-0.5, attention.q_proj.bias * size**-0.5)
        self.register_buffer("key", attention.k_proj.weight.detach().unflatten(0, (self.heads, size)))  # HxDxC
        value = attention.v_proj.weight.detach().unflatten(0, (self.heads, size))
        self.register_buffer("value", value.transpose(1, 2).contiguous())  # HxCxD
        out = attention.out_proj
        self.out = linear(out.weight, out.bias + out.weight @ attention.v_proj.bias)

    def forward(self, tokens: torch.Tensor, placed: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Attend: tokens NxTxC; image with and without its encoding, NxLxC or 1xLxC; returns NxTxC."""
        query = _split(self.query(tokens), self.heads) @ self.key  # NxHxTxD -> NxHxTxC
        weights = _shared(query.flatten(1, 2), placed.transpose(1, 2)).softmax(dim=2)  # NxHTxL
        seen = _shared(weights, image).unflatten(1, (self.heads, -1)) @ self.value  # NxHTxC -> NxHxTxD
        return self.out(seen.transpose(1, 2).flatten(2))  # NxHxTxD -> NxTxHD


class _ImageToTokens(nn.Module):
    """Attention from L positions to T tokens, queries and output not projected."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads = attention.heads
        size = attention.q_proj.out_features // self.heads
        self.key = linear(attention.k_proj.weight * size**-0.5, attention.k_proj.bias * size**-0.5)
        self.value = attention.v_proj
        query, out = attention.q_proj, attention.out_proj
        self.register_buffer("query", query.weight.detach().unflatten(0, (self.heads, size)))  # HxDxC
        self.register_buffer("query_bias", query.bias.detach().unflatten(0, (self.heads, size)).unsqueeze(2))  # HxDx1
        self.register_buffer("out", out.weight.detach().t().unflatten(0, (self.heads, size)))  # HxDxC
        self.register_buffer("out_bias", out.bias.detach() / self.heads)  # each head's weights sum to one

    def forward(
        self, placed: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, padding: torch.Tensor | None
    ) -> torch.Tensor:
        """Attend: image with its encoding NxLxC or 1xLxC, tokens with and without theirs NxTxC; returns NxLxC."""
        key = _split(self.key(keys), self.heads)
        scores = _shared((key @ self.query).flatten(1, 2), placed.transpose(1, 2))  # NxHTxL
        scores = scores.unflatten(1, (self.heads, -1)) + key @ self.query_bias  # NxHxTxL
        if padding is not None:
            scores = scores + padding[:, None, :, None]
        weights = scores.softmax(dim=2).flatten(1, 2)
        value = (_split(self.value(values), self.heads) @ self.out + self.out_bias).flatten(1, 2)  # NxHTxC
        return weights.transpose(1, 2) @ value


def _split(tokens: torch.Tensor, heads: int) -> torch.Tensor:
    """NxTxHD -> NxHxTxD."""
    return tokens.unflatten(2, (heads, -1)).transpose(1, 2)


def _shared(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Multiply NxRxK by NxKxC, or by 1xKxC in one product."""
    if columns.shape[0] != 1:
        return rows @ columns
    return (rows.flatten(0, 1) @ columns[0]).unflatten(0, (-1, rows.shape[1]))
