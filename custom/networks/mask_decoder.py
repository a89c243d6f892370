"""Mask decoder with a modality branch and a content branch (MCP-MedSAM, Section 3.2.3 and Figure 3).

The modality token modulates the image features as in FiLM (Perez et al., AAAI 2018, https://arxiv.org/abs/1709.07871).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d, Mlp
from torch import nn
from torchvision.ops import MLP

from custom.networks.content_cnn import LEAKY_SLOPE
from custom.networks.prompt_encoder import EncodedPrompts
from custom.networks.two_way_transformer import TwoWayTransformer

NUM_MASK_TOKENS = 4


class DecoderOutput(NamedTuple):
    """mask_logits Rx256x256, iou R, modality_logits RxM (None without a modality prompt)."""

    mask_logits: torch.Tensor
    iou: torch.Tensor
    modality_logits: torch.Tensor | None


class ResidualBlock(nn.Module):
    """x + conv(LeakyReLU(BN(conv(x)))), with no activation after the sum: BxCxHxW -> BxCxHxW."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)

    def start_as_identity(self) -> None:
        """Make the block return its input until it is trained."""
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the refined features."""
        return x + self.conv2(F.leaky_relu(self.norm1(self.conv1(x)), LEAKY_SLOPE))


class MaskDecoder(nn.Module):
    """Join image embedding and prompts into a mask, a predicted IoU and a modality class.

    A branch whose prompt is off passes the image features through; with both off this is SAM's decoder. A click in
    place of a box has a transformer of its own, so that learning clicks does not change the masks of boxes.
    """

    def __init__(self, *, width: int = 256, num_modalities: int = 11) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(width=width)
        self.click_transformer = TwoWayTransformer(width=width)
        self.iou_token = nn.Parameter(torch.randn(1, width))
        self.mask_tokens = nn.Parameter(torch.randn(NUM_MASK_TOKENS, width))

        self.film_weight = nn.Linear(width, width)
        self.film_bias = nn.Linear(width, width)
        self.modality_block = ResidualBlock(width)
        self.modality_head = Mlp(width, width // 4, num_modalities)
        self.content_block = ResidualBlock(width)
        self.join = nn.Conv2d(2 * width, width, 1)
        self.join_block = ResidualBlock(width)

        self.upscale = nn.Sequential(
            nn.ConvTranspose2d(width, width // 4, 2, stride=2),
            LayerNorm2d(width // 4, eps=1e-6),
            nn.GELU(),
            nn.ConvTranspose2d(width // 4, width // 8, 2, stride=2),
            nn.GELU(),
        )
        self.mask_mlp = MLP(width, [width, width, width // 8])
        # One score for each mask token, as in the published checkpoints; the paper and this network use the first.
        self.iou_head = MLP(width, [width, width, NUM_MASK_TOKENS])
        self.start_as_identity()

    def start_as_identity(self) -> None:
        """Make both new branches return the image features unchanged until they are trained."""
        for block in (self.modality_block, self.content_block, self.join_block):
            block.start_as_identity()
        for film in (self.film_weight, self.film_bias):
            nn.init.zeros_(film.weight)
            nn.init.zeros_(film.bias)
        # w * s + b + s with w = b = 0 is s: the join takes only the modality branch, unchanged.
        nn.init.dirac_(self.join.weight)
        nn.init.zeros_(self.join.bias)

    def start_clicks(self) -> None:
        """Start the transformer for clicks as that for boxes."""
        self.click_transformer.load_state_dict(self.transformer.state_dict())

    def forward(self, image: torch.Tensor, image_pe: torch.Tensor, prompts: EncodedPrompts) -> DecoderOutput:
        """Decode R objects.

        Args:
            image: image embedding, RxCxHxW.
            image_pe: positional encoding of the grid, 1xCxHxW.
            prompts: the encoded prompts of R objects.
        """
        own = {"iou": self.iou_token, "masks": self.mask_tokens}
        tokens = {name: token.expand(len(image), -1, -1) for name, token in own.items()} | prompts.tokens
        absent = prompts.absent
        if absent is not None:
            absent = F.pad(absent, (1 + NUM_MASK_TOKENS, 0))
        dense = prompts.dense if prompts.mask is None else prompts.dense + prompts.mask
        values = torch.cat(list(tokens.values()), dim=1)
        joined, source = self._attend(image + dense, image_pe, values, absent, prompts.boxless)
        sizes = [token.shape[1] for token in tokens.values()]
        tokens = dict(zip(tokens, joined.split(sizes, dim=1), strict=True))

        modality_logits = None
        if "modality" in tokens or self._has_content(prompts):
            by_modality, modality_logits = self._modality_branch(source, tokens.get("modality"))
            by_content = self._content_branch(source, prompts, tokens.get("content"))
            source = self.join_block(self.join(torch.cat([by_modality, by_content], dim=1)))

        features = self.upscale(source)  # RxCxHxW -> RxC/8x4Hx4W
        kernel = self.mask_mlp(tokens["masks"][:, 0])  # RxC -> RxC/8
        mask_logits = torch.einsum("rc,rchw->rhw", kernel, features)
        return DecoderOutput(mask_logits, self.iou_head(tokens["iou"][:, 0])[:, 0], modality_logits)

    def _attend(
        self,
        source: torch.Tensor,
        image_pe: torch.Tensor,
        tokens: torch.Tensor,
        absent: torch.Tensor | None,
        boxless: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Join image and tokens, by a transformer of their own for objects that have a click in place of a box."""
        if boxless is None or not boxless.any():
            return self.transformer(source, image_pe, tokens, absent)
        rows = [chosen.nonzero()[:, 0] for chosen in (~boxless, boxless)]
        parts = [
            transformer(source[chosen], image_pe, tokens[chosen], None if absent is None else absent[chosen])
            for transformer, chosen in zip((self.transformer, self.click_transformer), rows, strict=True)
            if len(chosen)
        ]
        order = torch.cat(rows).argsort()
        joined, images = (torch.cat(values)[order] for values in zip(*parts, strict=True))
        return joined, images

    @staticmethod
    def _has_content(prompts: EncodedPrompts) -> bool:
        return "content" in prompts.tokens or prompts.dense.shape[-1] > 1

    def _modality_branch(
        self, source: torch.Tensor, token: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if token is None:
            return source, None
        token = token[:, 0]  # Rx1xC -> RxC
        weight, bias = self.film_weight(token), self.film_bias(token)
        film = weight[:, :, None, None] * source + bias[:, :, None, None] + source
        return self.modality_block(film), self.modality_head(weight + bias + token)

    def _content_branch(
        self, source: torch.Tensor, prompts: EncodedPrompts, token: torch.Tensor | None
    ) -> torch.Tensor:
        if not self._has_content(prompts):
            return source
        joined = prompts.dense + source
        if token is not None:
            joined = joined + token[:, 0, :, None, None]
        return self.content_block(joined)
