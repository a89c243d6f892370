"""Prompt encoder: box, modality prompt and content prompt (MCP-MedSAM, Sections 3.2.1 and 3.2.2)."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import NamedTuple

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from torch import nn

from custom.errors import InputError
from custom.images.frame import IMAGE_SIZE
from custom.networks.content_cnn import ContentCNN
from custom.networks.prompt_switches import PromptComponents
from custom.networks.tiny_vit import EMBEDDING_SIZE, EMBEDDING_WIDTH

_SWITCHES = len(fields(PromptComponents))
_LARGEST_CONTENT = 255  # stored as a byte


class Prompts(NamedTuple):
    """The input of the decoder; R rows, one per box.

    Attributes:
        corners: the box, Rx2xC.
        content: sparse content token, RxC, or None if CLIP's image feature is off.
        modality: modality token, RxC, or None if the modality prompt is off.
        dense: dense prompt, RxCx64x64, or 1xCx1x1 if the content CNN is off.
    """

    corners: torch.Tensor
    content: torch.Tensor | None
    modality: torch.Tensor | None
    dense: torch.Tensor

    @property
    def sparse(self) -> torch.Tensor:
        """All tokens in the published order (two corners, content, modality), RxTxC."""
        extra = [token.unsqueeze(1) for token in (self.content, self.modality) if token is not None]
        return torch.cat([self.corners, *extra], dim=1)


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
    """Turn boxes, modality and the content of the box into tokens and a dense map.

    Every component's weights are always there, so that all switches share one checkpoint layout; the switches
    themselves are stored with the weights.

    Args:
        components: which components take part.
        num_modalities: rows of the modality table.
        clip_width: width of the CLIP features (512 for PubMedCLIP and BiomedCLIP).
        content_size: side of the crops for the content CNN, up to 255 pixels.
        width: width of the tokens.
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
        self.components, self.content_size = components, content_size
        self.position = FourierEncoding(width)
        self.corner_embed = nn.Parameter(torch.randn(2, width))
        self.no_mask_embed = nn.Parameter(torch.randn(1, width))

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
        self.content_cnn.start_as(self.no_mask_embed[0])

    def get_extra_state(self) -> torch.Tensor:
        """Return switches and content size, so that a checkpoint records the prompts it was trained with."""
        return torch.cat([self.components.to_tensor(), torch.tensor([self.content_size], dtype=torch.uint8)])

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Read switches and content size from a checkpoint; without a size, that of the published network."""
        switches, size = state[:_SWITCHES], state[_SWITCHES:]
        self.components = PromptComponents.from_tensor(switches)
        self.content_size = int(size) if len(size) else EMBEDDING_SIZE

    def box_tokens(self, boxes: torch.Tensor) -> torch.Tensor:
        """Encode boxes (x_min, y_min, x_max, y_max in pixels of the 256 frame): Rx4 -> Rx2xC."""
        corners = (boxes.view(-1, 2, 2) + 0.5) / IMAGE_SIZE  # to pixel centres, then to [0, 1]
        return self.position(corners) + self.corner_embed

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

    def forward(
        self,
        boxes: torch.Tensor,
        modality: torch.Tensor,
        crop: torch.Tensor | None = None,
        image_feature: torch.Tensor | None = None,
        text_feature: torch.Tensor | None = None,
    ) -> Prompts:
        """Encode the prompts of R boxes.

        Args:
            boxes: Rx4 in pixels of the 256 frame.
            modality: R indices into the modality table, negative for unknown.
            crop: image inside the box, Rx3xSxS in [0, 1]; needed when the content CNN is on.
            image_feature: CLIP feature of the crop, RxF; zeros when not given.
            text_feature: CLIP feature of the modality's text, RxF; looked up when not given.
        """
        content = None
        if self.components.clip_image:
            if image_feature is None:
                image_feature = self.text_table.new_zeros(len(boxes), self.image_mlp.fc1.in_features)
            content = self.image_mlp(image_feature)
        token = self.modality_token(modality, text_feature) if self.components.modality_prompt else None
        if self.components.content_cnn:
            if crop.shape[-1] > self.content_size:  # cut at a higher resolution for the mask refinement
                crop = F.interpolate(crop, size=(self.content_size, self.content_size), mode="bilinear")
            dense = self.content_cnn(crop)
            if dense.shape[-1] != EMBEDDING_SIZE:  # a crop of another resolution still covers the whole grid
                dense = F.interpolate(dense, size=(EMBEDDING_SIZE, EMBEDDING_SIZE), mode="bilinear")
        else:
            dense = self.no_mask_embed.view(1, -1, 1, 1)
        return Prompts(self.box_tokens(boxes), content, token, dense)


def _rows_or_mean(table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Pick rows of a table, MxC -> RxC; negative indices give the mean row."""
    known = (index >= 0).unsqueeze(1)
    return torch.where(known, table[index.clamp(min=0)], table.mean(dim=0, keepdim=True))
