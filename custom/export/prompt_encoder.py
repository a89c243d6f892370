"""The prompt encoder for export: the tokens, with those of the modalities in a table, and the dense content prompt."""

from __future__ import annotations

import torch
from torch import nn

from custom.networks.mask_decoder import MaskDecoder
from custom.networks.prompt_encoder import PromptEncoder
from custom.prompts import NO_POINT

_NOT_ATTENDED = -1e4  # added to a score: its weight is then exactly zero, also in bfloat16


class ContentGraph(nn.Module):
    """The dense content prompt: crops Nx3xSxS in [0, 1] -> NxCx64x64."""

    def __init__(self, encoder: PromptEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Encode the crops."""
        return self.encoder.content_map(crops)


class TokenGraph(nn.Module):
    """All tokens of the decoder: its own, box, clicks, content, modality; each where it is on."""

    def __init__(self, encoder: PromptEncoder, decoder: MaskDecoder) -> None:
        super().__init__()
        self.encoder = encoder
        own_tokens = torch.cat([decoder.iou_token, decoder.mask_tokens])
        self.register_buffer("own_tokens", own_tokens.detach().unsqueeze(0))  # TxC -> 1xTxC
        if encoder.components.modality_prompt:
            count = encoder.modality_embed.num_embeddings
            rows = torch.tensor([*range(count), -1])  # unknown is last, so that it is row -1 of the table
            self.register_buffer("modality_tokens", encoder.modality_token(rows, None).detach())

    def forward(
        self,
        boxes: torch.Tensor,
        modality: torch.Tensor,
        image_features: torch.Tensor | None,
        points: torch.Tensor | None,
        point_labels: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the tokens, NxTxC, and what to add to the scores of each, NxT; None without clicks.

        The arguments are those of ``DecoderGraph``.
        """
        encoder, count = self.encoder, boxes.shape[0]
        tokens = [self.own_tokens.expand(count, -1, -1), encoder.box_tokens(boxes)]
        padding = [token.new_zeros(count, token.shape[1]) for token in tokens]
        if points is not None:
            tokens.append(encoder.point_tokens(points, point_labels))
            padding.append((point_labels == NO_POINT).to(points.dtype) * _NOT_ATTENDED)
        if encoder.components.clip_image:
            tokens.append(encoder.image_mlp(image_features).unsqueeze(1))
        if encoder.components.modality_prompt:
            tokens.append(self.modality_tokens[modality].unsqueeze(0).expand(count, -1, -1))
        if points is None:
            return torch.cat(tokens, dim=1), None
        padding += [token.new_zeros(count, 1) for token in tokens[len(padding) :]]
        return torch.cat(tokens, dim=1), torch.cat(padding, dim=1)
