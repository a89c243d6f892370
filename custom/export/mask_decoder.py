"""Mask decoder for export: the same function, with everything independent of the box done once.

The positional encoding of the grid is a constant, and without the content CNN all boxes share one image. The two-way
transformer's large projections are folded (``custom.export.two_way_transformer``), and the upscaling works on tokens,
so that only the finished mask is rearranged.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from custom.export.layers import FusedResidualBlock, linear, to_map, to_tokens
from custom.export.prompt_encoder import TokenGraph
from custom.export.two_way_transformer import TwoWayGraph
from custom.images.frame import IMAGE_SIZE
from custom.networks import MCPMedSAM, PromptComponents
from custom.networks.embedding import EMBEDDING_SIZE
from custom.networks.mask_decoder import MaskDecoder

_IOU, _MASK = 0, 1  # places of the decoder's own tokens


class DecoderGraph(nn.Module):
    """Decode N objects of one image, with the mask refinement.

    Args:
        network: the network in evaluation mode; it is not changed.
        boxless: for objects with a click in place of a box.
    """

    def __init__(self, network: MCPMedSAM, *, boxless: bool = False) -> None:
        super().__init__()
        encoder, decoder = network.prompt_encoder, network.mask_decoder
        components = network.components
        self.encoder, self.tokens = encoder, TokenGraph(encoder, decoder)
        self.register_buffer("no_mask_embed", encoder.no_mask_embed.detach().unsqueeze(1))  # 1xC -> 1x1xC
        self.register_buffer("image_pe", to_tokens(encoder.position.grid(EMBEDDING_SIZE)).detach())
        transformer = decoder.click_transformer if boxless else decoder.transformer
        extra = components.clip_image + components.modality_prompt  # the last tokens
        self.transformer = TwoWayGraph(transformer, answers=[_IOU, _MASK, *range(-extra, 0)])
        self.has_branches = components.modality_prompt or components.content_prompt
        if self.has_branches:
            self.branches = _Branches(decoder, components)
        self.mask_mlp, self.iou_head, self.upscale = decoder.mask_mlp, decoder.iou_head, _Upscaling(decoder.upscale)
        self.refinement = network.mask_refinement if network.mask_refinement.on else None

    def forward(
        self,
        embedding: torch.Tensor,
        boxes: torch.Tensor,
        modality: torch.Tensor,
        content: torch.Tensor | None = None,
        crops: torch.Tensor | None = None,
        crop_boxes: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
        points: torch.Tensor | None = None,
        point_labels: torch.Tensor | None = None,
        masks: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Decode.

        Args:
            embedding: of the image, 1x256x64x64.
            boxes: Nx4 in pixels of the 256 frame.
            modality: index of the modality, (1,), -1 for unknown.
            content: dense content prompt, NxCx64x64; with the content CNN.
            crops: Nx3xSxS in [0, 1], S the network's crop size; with the refinement.
            crop_boxes: where the crops were cut, Nx4; by default the boxes.
            image_features: CLIP feature of each crop, NxF; with CLIP's image feature.
            points: NxPx2, with weights that take clicks.
            point_labels: NxP, as in ``custom.prompts``.
            masks: logits of the masks to correct, Nx256x256; where they prompt the decoder.

        Returns:
            mask_logits Nx256x256, iou N, and with a modality prompt modality_logits NxM.
        """
        tokens, padding = self.tokens(boxes, modality, image_features, points, point_labels)
        dense = self.no_mask_embed if content is None else to_tokens(content)
        image = to_tokens(embedding) + dense
        if masks is not None:
            image = image + to_tokens(self.encoder.mask_map(masks))
        tokens, source = self.transformer(tokens, image, self.image_pe, padding)
        modality_logits = None
        if self.has_branches:
            source, modality_logits = self.branches(source, dense, tokens[:, 2:])
        mask_logits = self.upscale(source, self.mask_mlp(tokens[:, _MASK]))
        if self.refinement is not None:
            mask_logits = self.refinement(mask_logits, crops, boxes if crop_boxes is None else crop_boxes)
        iou = self.iou_head(tokens[:, _IOU])[:, 0]
        return (mask_logits, iou) if modality_logits is None else (mask_logits, iou, modality_logits)


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
