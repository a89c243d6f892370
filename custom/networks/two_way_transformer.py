"""SAM's two-way transformer: prompt tokens attend to the image and the image attends to the tokens.

Paper: Segment Anything, Kirillov et al., ICCV 2023, https://arxiv.org/abs/2304.02643 (Section 3, Appendix A).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import MLP


class Attention(nn.Module):
    """Multi-head attention whose inner width may be smaller than the width of its tokens."""

    def __init__(self, *, width: int, heads: int, inner_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, inner_width)
        self.k_proj = nn.Linear(width, inner_width)
        self.v_proj = nn.Linear(width, inner_width)
        self.out_proj = nn.Linear(inner_width, width)

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # BxLxC -> BxHeadsxLxC/Heads

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, attended: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Attend from q (BxLxC) to k and v (BxMxC), to some of them only if ``attended`` (BxM) is given: BxLxC."""
        q, k, v = self._split(self.q_proj(q)), self._split(self.k_proj(k)), self._split(self.v_proj(v))
        mask = None if attended is None else attended[:, None, None]  # BxM -> Bx1x1xM
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out_proj(out.transpose(1, 2).flatten(2))  # BxHeadsxLxC/Heads -> BxLxC


class TwoWayBlock(nn.Module):
    """Self-attention of the tokens, tokens to image, MLP, image to tokens; each with a residual and a LayerNorm."""

    def __init__(self, *, width: int, heads: int, mlp_width: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention(width=width, heads=heads, inner_width=width)
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn_token_to_image = Attention(width=width, heads=heads, inner_width=width // 2)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, [mlp_width, width])
        self.norm3 = nn.LayerNorm(width)
        self.norm4 = nn.LayerNorm(width)
        self.cross_attn_image_to_token = Attention(width=width, heads=heads, inner_width=width // 2)

    def forward(
        self,
        tokens: torch.Tensor,
        image: torch.Tensor,
        token_pe: torch.Tensor,
        image_pe: torch.Tensor,
        attended: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Update tokens (BxTxC) and image (BxLxC); the encodings are added to queries and keys only."""
        if self.first:  # the first block's tokens are their own positional encoding
            tokens = self.self_attn(tokens, tokens, tokens, attended)
        else:
            q = tokens + token_pe
            tokens = tokens + self.self_attn(q, q, tokens, attended)
        tokens = self.norm1(tokens)
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_pe, image + image_pe, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        seen = self.cross_attn_image_to_token(image + image_pe, tokens + token_pe, tokens, attended)
        return tokens, self.norm4(image + seen)


class TwoWayTransformer(nn.Module):
    """Blocks of two-way attention and a final attention from the tokens to the image."""

    def __init__(self, *, width: int = 256, depth: int = 2, heads: int = 8, mlp_width: int = 2048) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            TwoWayBlock(width=width, heads=heads, mlp_width=mlp_width, first=i == 0) for i in range(depth)
        )
        self.final_attn_token_to_image = Attention(width=width, heads=heads, inner_width=width // 2)
        self.norm_final = nn.LayerNorm(width)

    def forward(
        self,
        source: torch.Tensor,
        source_pe: torch.Tensor,
        tokens: torch.Tensor,
        absent: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Join image and prompts.

        Args:
            source: image embedding plus dense prompt, BxCxHxW.
            source_pe: positional encoding of the grid, 1xCxHxW.
            tokens: BxTxC.
            absent: BxT, True for tokens that nothing attends to; None if there are none.

        Returns:
            tokens BxTxC and image features BxCxHxW.
        """
        image = source.flatten(2).transpose(1, 2)  # BxCxHxW -> BxHWxC
        image_pe = source_pe.flatten(2).transpose(1, 2)  # 1xCxHxW -> 1xHWxC
        token_pe, attended = tokens, None if absent is None else ~absent
        for block in self.blocks:
            tokens, image = block(tokens, image, token_pe, image_pe, attended)
        attended = self.final_attn_token_to_image(tokens + token_pe, image + image_pe, image)
        tokens = self.norm_final(tokens + attended)
        return tokens, image.transpose(1, 2).reshape(source.shape)  # BxHWxC -> BxCxHxW
