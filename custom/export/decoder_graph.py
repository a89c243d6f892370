"""Prompt encoder and mask decoder for export: the same function, with everything independent of the box done once.

The modality tokens are a table, the positional encoding of the grid is a constant, and without the content CNN all
boxes share one image. The two-way transformer's large projections are folded (``custom.export.attention``), and the
upscaling works on tokens, so that only the finished mask is rearranged.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from custom.export.attention import TwoWayGraph
from custom.export.layers import FusedContentBlock, FusedResidualBlock, TokenConv, linear, to_map, to_tokens
from custom.images.frame import IMAGE_SIZE
from custom.networks import MCPMedSAM, PromptComponents
from custom.networks.mask_decoder import NUM_MASK_TOKENS, MaskDecoder
from custom.networks.prompt_encoder import PromptEncoder
from custom.networks.tiny_vit import EMBEDDING_SIZE

_IOU, _MASK = 0, 1  # places of the decoder's own tokens
_FIRST_PROMPT = 1 + NUM_MASK_TOKENS + 2  # after the IoU token, the mask tokens and the two corners


class DecoderGraph(nn.Module):
    """Decode N boxes of one image.

    Args:
        network: the network in evaluation mode; it is not changed.
    """

    def __init__(self, network: MCPMedSAM) -> None:
        super().__init__()
        encoder, decoder = network.prompt_encoder, network.mask_decoder
        self.components = network.components
        self.prompts = _SparsePrompts(encoder, torch.cat([decoder.iou_token, decoder.mask_tokens]))
        if self.components.content_cnn:
            self.content_cnn = _ContentTokens(encoder, network.crop_size)
        self.register_buffer("no_mask_embed", encoder.no_mask_embed.detach().unsqueeze(1))  # 1xC -> 1x1xC
        self.register_buffer("image_pe", to_tokens(encoder.position.grid(EMBEDDING_SIZE)).detach())
        extra = self.components.clip_image + self.components.modality_prompt
        answers = [_IOU, _MASK, *range(_FIRST_PROMPT, _FIRST_PROMPT + extra)]
        self.transformer = TwoWayGraph(decoder.transformer, answers=answers)
        self.has_branches = self.components.modality_prompt or self.components.content_prompt
        if self.has_branches:
            self.branches = _Branches(decoder, self.components)
        self.mask_mlp, self.iou_head, self.upscale = decoder.mask_mlp, decoder.iou_head, _Upscaling(decoder.upscale)
        self.refinement = network.mask_refinement if network.mask_refinement.on else None

    def forward(
        self,
        embedding: torch.Tensor,
        boxes: torch.Tensor,
        modality: torch.Tensor,
        crops: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Decode.

        Args:
            embedding: of the image, 1x256x64x64.
            boxes: Nx4 in pixels of the 256 frame.
            modality: index of the modality, (1,), -1 for unknown.
            crops: Nx3xSxS in [0, 1], S the network's crop size; with the content CNN or the refinement.
            image_features: CLIP feature of each crop, NxF; with CLIP's image feature.

        Returns:
            mask_logits Nx256x256, iou N, and with a modality prompt modality_logits NxM.
        """
        tokens = self.prompts(boxes, modality, image_features)
        dense = self.content_cnn(crops) if self.components.content_cnn else self.no_mask_embed
        tokens, source = self.transformer(tokens, to_tokens(embedding) + dense, self.image_pe)
        modality_logits = None
        if self.has_branches:
            source, modality_logits = self.branches(source, dense, tokens[:, 2:])
        mask_logits = self.upscale(source, self.mask_mlp(tokens[:, _MASK]))
        if self.refinement is not None:
            mask_logits = self.refinement(mask_logits, crops, boxes)
        iou = self.iou_head(tokens[:, _IOU])[:, 0]
        return (mask_logits, iou) if modality_logits is None else (mask_logits, iou, modality_logits)


class _ContentTokens(nn.Module):
    """The content CNN, its output stretched over the embedding: crops Nx3xSxS -> NxLxC."""

    def __init__(self, encoder: PromptEncoder, crop_size: int) -> None:
        super().__init__()
        cnn, self.size = encoder.content_cnn, encoder.content_size
        self.reduces = crop_size > self.size
        self.cnn = nn.Sequential(cnn.stem, *(FusedContentBlock(block) for block in cnn.blocks), TokenConv(cnn.head))

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Return the tokens."""
        if self.reduces:
            crops = F.interpolate(crops, size=(self.size, self.size), mode="bilinear")
        dense = self.cnn(crops)
        if self.size == EMBEDDING_SIZE:
            return dense
        size = (EMBEDDING_SIZE, EMBEDDING_SIZE)
        return to_tokens(F.interpolate(to_map(dense, self.size), size=size, mode="bilinear"))


class _SparsePrompts(nn.Module):
    """The decoder's own tokens, the corners, and the tokens of content and modality if they are on: NxTxC."""

    def __init__(self, encoder: PromptEncoder, own_tokens: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("own_tokens", own_tokens.detach().unsqueeze(0))  # TxC -> 1xTxC
        self.register_buffer("corner_embed", encoder.corner_embed.detach())
        self.position = encoder.position
        self.image_mlp = encoder.image_mlp if encoder.components.clip_image else None
        self.has_modality = encoder.components.modality_prompt
        if self.has_modality:
            count = encoder.modality_embed.num_embeddings
            rows = torch.tensor([*range(count), -1])  # unknown is last, so that it is row -1 of the table
            self.register_buffer("modality_tokens", encoder.modality_token(rows, None).detach())

    def forward(self, boxes: torch.Tensor, modality: torch.Tensor, image_features: torch.Tensor | None) -> torch.Tensor:
        """Return the tokens; arguments as in ``DecoderGraph``."""
        count = boxes.shape[0]
        corners = self.position((boxes.reshape(-1, 2, 2) + 0.5) / IMAGE_SIZE) + self.corner_embed
        tokens = [self.own_tokens.expand(count, -1, -1), corners]
        if self.image_mlp is not None:
            tokens.append(self.image_mlp(image_features).unsqueeze(1))
        if self.has_modality:
            tokens.append(self.modality_tokens[modality].unsqueeze(0).expand(count, -1, -1))
        return torch.cat(tokens, dim=1)


class _Branches(nn.Module):
    """Modality branch, content branch and their join: tokens NxLxC -> NxLxC."""

    def __init__(self, decoder: MaskDecoder, components: PromptComponents) -> None:
        super().__init__()
        self.components = components
        if components.modality_prompt:
            self.film_weight, self.film_bias = decoder.film_weight, decoder.film_bias
            self.modality_head = decoder.modality_head
            self.modality_block = FusedResidualBlock(decoder.modality_block)
        if components.content_prompt:
            self.content_block = FusedResidualBlock(decoder.content_block)
        self.join, self.join_block = decoder.join, FusedResidualBlock(decoder.join_block)

    def forward(
        self, source: torch.Tensor, dense: torch.Tensor, tokens: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Join source NxLxC, dense NxLxC or 1x1xC, and the tokens; also returns the modality logits."""
        by_modality = by_content = to_map(source, EMBEDDING_SIZE)
        modality_logits = None
        if self.components.modality_prompt:
            token = tokens[:, -1]
            weight, bias = self.film_weight(token), self.film_bias(token)
            film = (weight + 1).unsqueeze(1) * source + bias.unsqueeze(1)
            by_modality = self.modality_block(to_map(film, EMBEDDING_SIZE))
            modality_logits = self.modality_head(weight + bias + token)
        if self.components.content_prompt:
            joined = source + dense
            if self.components.clip_image:
                joined = joined + tokens[:, :1]
            by_content = self.content_block(to_map(joined, EMBEDDING_SIZE))
        joined = self.join_block(self.join(torch.cat([by_modality, by_content], dim=1)))
        return to_tokens(joined), modality_logits


class _Upscaling(nn.Module):
    """Both upscaling convolutions and the product with the mask's kernel, position by position.

    A transposed convolution whose stride equals its kernel gives each position its own 2x2 patch.
    """

    def __init__(self, upscale: nn.Sequential) -> None:
        super().__init__()
        first, self.norm, _, second, _ = upscale
        self.first, self.second = _patches(first), _patches(second)

    def forward(self, source: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        """Return mask logits: source NxLxC, kernel NxK -> Nx256x256."""
        width = self.norm.weight.shape[0]
        fine = self.first(source).reshape(-1, 4 * EMBEDDING_SIZE**2, width)  # NxLx4C -> NxL*4xC
        fine = F.gelu(F.layer_norm(fine, (width,), self.norm.weight, self.norm.bias, self.norm.eps))
        finest = F.gelu(self.second(fine)).reshape(-1, IMAGE_SIZE**2, kernel.shape[1])  # NxL*4x4K -> NxL*16xK
        logits = finest @ kernel.unsqueeze(2)
        side = EMBEDDING_SIZE
        logits = logits.reshape(-1, side, side, 2, 2, 2, 2).permute(0, 1, 3, 5, 2, 4, 6)  # y, y, y, x, x, x
        return logits.reshape(-1, IMAGE_SIZE, IMAGE_SIZE)


def _patches(conv: nn.ConvTranspose2d) -> nn.Linear:
    """Return the linear layer from a position to its 2x2 patch: C -> 2*2*C'."""
    return linear(conv.weight.permute(2, 3, 1, 0).flatten(0, 2), conv.bias.repeat(4))  # CxC'x2x2 -> 2*2*C'xC
