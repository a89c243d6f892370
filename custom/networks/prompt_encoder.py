"""Prompt encoder: box, modality prompt and content prompt (MCP-MedSAM, Sections 3.2.1 and 3.2.2).

Clicks and masks as prompts are those of SAM (Kirillov et al., ICCV 2023, https://arxiv.org/abs/2304.02643, Appendix A).
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import NamedTuple

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d, Mlp
from torch import nn

from custom.errors import InputError
from custom.images.frame import IMAGE_SIZE
from custom.networks.content_cnn import ContentCNN
from custom.networks.embedding import EMBEDDING_SIZE, EMBEDDING_WIDTH
from custom.networks.prompt_switches import PromptComponents
from custom.prompts import NO_BOX, NO_POINT, Prompts

_SWITCHES = len(fields(PromptComponents))
_LARGEST_CONTENT = 255  # stored as a byte


class EncodedPrompts(NamedTuple):
    """The input of the decoder for R objects.

    Attributes:
        tokens: name -> RxTxC, in the published order: "box" (two corners), "points", "content", "modality".
        absent: RxT, True for tokens that are padding and are not attended to; None if there is no padding.
        dense: dense content prompt, RxCx64x64, or 1xCx1x1 if the content CNN is off.
        mask: dense prompt of the mask to correct, RxCx64x64, or None.
        boxless: R, True for objects without a box; None if all have one.
    """

    tokens: dict[str, torch.Tensor]
    absent: torch.Tensor | None
    dense: torch.Tensor
    mask: torch.Tensor | None = None
    boxless: torch.Tensor | None = None


class FourierEncoding(nn.Module):
    """SAM's positional encoding by random spatial frequencies: ...x2 in [0, 1] -> ...xC."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(2, width // 2))

    def forward(self, xy: torch.Tensor) -> torch.Tensor:
        """Encode coordinates (x, y) in [0, 1]; in float32, since half precision loses the high frequencies."""
        with torch.autocast(xy.device.type, enabled=False):
            phase = 2 * math.pi * ((2 * xy.float() - 1) @ self.frequencies.float())
        return torch.cat([phase.sin(), phase.cos()], dim=-1)

    def grid(self, size: int) -> torch.Tensor:
        """Encode the centres of a size x size grid: 1xCxSxS."""
        centres = (torch.arange(size, device=self.frequencies.device) + 0.5) / size
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        return self(torch.stack([x, y], dim=-1)).permute(2, 0, 1).unsqueeze(0)  # SxSxC -> 1xCxSxS


class PromptEncoder(nn.Module):
    """Turn boxes, clicks, masks, modality and the content of the box into tokens and dense maps.

    Every component's weights are always there, so that all switches share one checkpoint layout; the switches
    themselves are stored with the weights.

    Args:
        components: which components take part.
        num_modalities: rows of the modality table.
        clip_width: width of the CLIP features (512 for PubMedCLIP and BiomedCLIP).
        content_size: side of the crops for the content CNN, up to 255 pixels.
        width: width of the tokens.

    Attributes:
        click_tokens: whether clicks and the mask before them prompt the decoder of an object that has a box; if not,
            they only prompt the mask correction. Stored in checkpoints.
    """

    def __init__(
        self,
        *,
        components: PromptComponents,
        num_modalities: int = 11,
        clip_width: int = 512,
        content_size: int = EMBEDDING_SIZE,
        width: int = EMBEDDING_WIDTH,
    ) -> None:
        super().__init__()
        self.components, self.content_size, self.click_tokens = components, content_size, False
        self.position = FourierEncoding(width)
        self.corner_embed = nn.Parameter(torch.randn(2, width))
        self.no_mask_embed = nn.Parameter(torch.randn(1, width))
        self.point_embed = nn.Parameter(torch.randn(2, width))  # negative, positive
        self.no_point_embed = nn.Parameter(torch.randn(1, width))
        self.mask_encoder = nn.Sequential(  # Rx1x256x256 -> RxCx64x64
            nn.Conv2d(1, 4, 2, stride=2),
            LayerNorm2d(4, eps=1e-6),
            nn.GELU(),
            nn.Conv2d(4, 16, 2, stride=2),
            LayerNorm2d(16, eps=1e-6),
            nn.GELU(),
            nn.Conv2d(16, width, 1),
        )
        self.mask_scale = nn.Parameter(torch.zeros(width))

        self.modality_embed = nn.Embedding(num_modalities, width)
        self.text_mlp = Mlp(clip_width, width, width)
        self.modality_mlp = Mlp(2 * width, 2 * width, width)
        # CLIP's text side is constant for a modality: one table, stored with the weights, replaces the text tower.
        self.register_buffer("text_table", torch.zeros(num_modalities, clip_width))

        self.image_mlp = Mlp(clip_width, width, width)
        self.content_cnn = ContentCNN(width)
        self.start_as_identity()

    @property
    def content_size(self) -> int:
        """Side of the crops for the content CNN in pixels, stored in checkpoints."""
        return self._content_size

    @content_size.setter
    def content_size(self, size: int) -> None:
        if not 1 <= size <= _LARGEST_CONTENT:
            raise InputError("arguments", "content_size", size, f"1 to {_LARGEST_CONTENT}")
        self._content_size = size

    def start_as_identity(self) -> None:
        """Make the new prompts neutral: zero tokens, and the no-mask vector as dense prompt."""
        for mlp in (self.image_mlp, self.modality_mlp):
            nn.init.zeros_(mlp.fc2.weight)
            nn.init.zeros_(mlp.fc2.bias)
        nn.init.zeros_(self.mask_scale)
        self.content_cnn.start_as(self.no_mask_embed[0])

    def start_without_clicks(self) -> None:
        """Start clicks and masks from nothing, for weights from before there were any."""
        for parameter in (self.point_embed, self.no_point_embed, self.mask_scale):
            nn.init.zeros_(parameter)
        self.click_tokens = False

    def get_extra_state(self) -> torch.Tensor:
        """Return switches, content size and click tokens: a checkpoint records the prompts it was trained with."""
        values = torch.tensor([self.content_size, self.click_tokens], dtype=torch.uint8)
        return torch.cat([self.components.to_tensor(), values])

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Read them from a checkpoint; earlier ones have fewer, those of the published network have the rest."""
        switches, values = state[:_SWITCHES], state[_SWITCHES:].tolist()
        self.components = PromptComponents.from_tensor(switches)
        self.content_size = values[0] if values else EMBEDDING_SIZE
        self.click_tokens = len(values) > 1 and bool(values[1])

    def box_tokens(self, boxes: torch.Tensor) -> torch.Tensor:
        """Encode boxes: Rx4 -> Rx2xC; both corners of an absent box become "no point"."""
        corners = (boxes.view(-1, 2, 2) + 0.5) / IMAGE_SIZE  # to pixel centres, then to [0, 1]
        tokens = self.position(corners) + self.corner_embed
        return torch.where((boxes[:, 2] <= NO_BOX).view(-1, 1, 1), self.no_point_embed.to(tokens.dtype), tokens)

    def point_tokens(self, points: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Encode clicks: RxPx2 and their labels RxP -> RxPxC."""
        tokens = self.position((points + 0.5) / IMAGE_SIZE)
        tokens = tokens + self.point_embed[labels.clamp(min=0)]
        return torch.where((labels == NO_POINT).unsqueeze(2), self.no_point_embed.to(tokens.dtype), tokens)

    def content_map(self, crops: torch.Tensor) -> torch.Tensor:
        """Encode the image inside boxes, the dense content prompt: Rx3xSxS in [0, 1] -> RxCx64x64."""
        if crops.shape[-1] > self.content_size:  # cut at a higher resolution for the mask refinement
            crops = F.interpolate(crops, size=(self.content_size, self.content_size), mode="bilinear")
        dense = self.content_cnn(crops)
        if dense.shape[-1] != EMBEDDING_SIZE:  # a crop of another resolution still covers the whole grid
            dense = F.interpolate(dense, size=(EMBEDDING_SIZE, EMBEDDING_SIZE), mode="bilinear")
        return dense

    def mask_map(self, masks: torch.Tensor) -> torch.Tensor:
        """Encode the logits of masks to correct: Rx256x256 -> RxCx64x64, zeros where there is no mask."""
        given = (masks != 0).flatten(1).any(dim=1).view(-1, 1, 1, 1)
        return self.mask_encoder((masks / 2).tanh().unsqueeze(1)) * self.mask_scale.view(1, -1, 1, 1) * given

    def modality_token(self, modality: torch.Tensor, text_feature: torch.Tensor | None) -> torch.Tensor:
        """Join text feature and learned embedding (Section 3.2.1).

        Args:
            modality: R indices; negative means unknown and uses the mean over all modalities.
            text_feature: RxF, or None to look it up in ``text_table``.

        Returns:
            RxC.
        """
        if text_feature is None:
            text_feature = _rows_or_mean(self.text_table, modality)
        embedding = _rows_or_mean(self.modality_embed.weight, modality)
        text = self.text_mlp(text_feature) if self.components.clip_text else torch.zeros_like(embedding)
        if not self.components.modality_embedding:
            embedding = torch.zeros_like(embedding)
        return self.modality_mlp(torch.cat([text, embedding.to(text.dtype)], dim=1))

    def forward(self, prompts: Prompts) -> EncodedPrompts:
        """Encode the prompts of R objects; a modality for each, crops or content where the content CNN is on."""
        tokens = {"box": self.box_tokens(prompts.boxes)}
        if prompts.points is not None:
            tokens["points"] = self.point_tokens(prompts.points, prompts.point_labels)
        if self.components.clip_image:
            features = prompts.image_features
            if features is None:
                features = self.text_table.new_zeros(len(prompts.boxes), self.image_mlp.fc1.in_features)
            tokens["content"] = self.image_mlp(features).unsqueeze(1)
        if self.components.modality_prompt:
            tokens["modality"] = self.modality_token(prompts.modality, prompts.text_features).unsqueeze(1)
        if not self.components.content_cnn:
            dense = self.no_mask_embed.view(1, -1, 1, 1)
        else:
            dense = self.content_map(prompts.crops) if prompts.content is None else prompts.content
        mask = None if prompts.masks is None else self.mask_map(prompts.masks)
        boxless = None if prompts.points is None else prompts.boxes[:, 2] <= NO_BOX
        return EncodedPrompts(tokens, _padding(tokens, prompts), dense, mask, boxless)


def _padding(tokens: dict[str, torch.Tensor], prompts: Prompts) -> torch.Tensor | None:
    """Return which tokens are padding, RxT; None without clicks."""
    if prompts.points is None:
        return None
    parts = [torch.zeros(value.shape[:2], dtype=torch.bool, device=value.device) for value in tokens.values()]
    parts[list(tokens).index("points")] = prompts.point_labels == NO_POINT
    return torch.cat(parts, dim=1)


def _rows_or_mean(table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Pick rows of a table, MxC -> RxC; negative indices give the mean row."""
    known = (index >= 0).unsqueeze(1)
    return torch.where(known, table[index.clamp(min=0)], table.mean(dim=0, keepdim=True))
