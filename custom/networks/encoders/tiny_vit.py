"""TinyViT image encoder of LiteMedSAM and MCP-MedSAM.

Paper: TinyViT, Wu et al., ECCV 2022, https://arxiv.org/abs/2207.10666. The blocks are timm's; the layout is that of
the published checkpoints: a patch embedding that keeps the full resolution, merging at the end of a stage, a last
merging that does not shrink, and SAM's neck.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.layers import LayerNorm2d
from timm.models.tiny_vit import ConvNorm, MBConv, PatchMerging, TinyVitBlock
from torch import nn

from custom.errors import InputError
from custom.networks.embedding import EMBEDDING_WIDTH
from custom.networks.recompute import recompute


class PatchEmbed(nn.Sequential):
    """Two 1x1 convolutions at full resolution: Bx3xHxW -> BxCxHxW."""

    def __init__(self, width: int) -> None:
        super().__init__(ConvNorm(3, width // 2), nn.GELU(), ConvNorm(width // 2, width))


class ConvStage(nn.Module):
    """MBConv blocks, then merging: BxCxHxW -> BxC'xH/2xW/2."""

    def __init__(self, *, width: int, depth: int, merged_width: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(MBConv(width, width, 4.0, nn.GELU, drop_path=0.0) for _ in range(depth)))
        self.merge = PatchMerging(width, merged_width, nn.GELU)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the merged features."""
        return self.merge(self.blocks(x))


class AttentionStage(nn.Module):
    """Window attention blocks, then merging (except in the last stage): BxCxHxW -> BxC'xH'xW'."""

    def __init__(
        self, *, width: int, depth: int, heads: int, window: int, merged_width: int | None, merge_stride: int = 2
    ) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(TinyVitBlock(width, heads, window_size=window) for _ in range(depth)))
        self.merge = nn.Identity() if merged_width is None else PatchMerging(width, merged_width, nn.GELU)
        if merged_width is not None and merge_stride != 2:
            self.merge.conv2.conv.stride = (merge_stride, merge_stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the merged features."""
        x = self.blocks(x.permute(0, 2, 3, 1))  # BxCxHxW -> BxHxWxC
        return self.merge(x.permute(0, 3, 1, 2))  # BxHxWxC -> BxCxHxW


class TinyViT(nn.Module):
    """Image encoder: Bx3x256x256 in [0, 1] -> Bx256x64x64.

    Attributes:
        input_size: side of the images in pixels.
        recompute: in training, compute a stage's activations again in the backward pass instead of keeping them.

    Example:
        >>> TinyViT()(torch.zeros(1, 3, 256, 256)).shape
        torch.Size([1, 256, 64, 64])
    """

    input_size = 256

    def __init__(
        self,
        *,
        widths: Sequence[int] = (64, 128, 160, 320),
        depths: Sequence[int] = (2, 2, 6, 2),
        heads: Sequence[int] = (2, 4, 5, 10),
        windows: Sequence[int] = (7, 7, 14, 7),
    ) -> None:
        super().__init__()
        self.recompute = False
        self._frozen = 0  # number of frozen parts, from the first
        self.patch_embed = PatchEmbed(widths[0])
        self.stages = nn.ModuleList([ConvStage(width=widths[0], depth=depths[0], merged_width=widths[1])])
        for i in range(1, len(widths)):
            last = i == len(widths) - 1
            self.stages.append(
                AttentionStage(
                    width=widths[i],
                    depth=depths[i],
                    heads=heads[i],
                    window=windows[i],
                    merged_width=None if last else widths[i + 1],
                    # SAM's decoder needs a 64 x 64 embedding, so the merging before the last stage keeps the size.
                    merge_stride=1 if i == len(widths) - 2 else 2,
                )
            )
        self.neck = nn.Sequential(
            nn.Conv2d(widths[-1], EMBEDDING_WIDTH, 1, bias=False),
            LayerNorm2d(EMBEDDING_WIDTH, eps=1e-6),
            nn.Conv2d(EMBEDDING_WIDTH, EMBEDDING_WIDTH, 3, padding=1, bias=False),
            LayerNorm2d(EMBEDDING_WIDTH, eps=1e-6),
        )
        # timm caches the gathered attention biases in eval mode; weights loaded later must not use an old cache.
        self.register_load_state_dict_post_hook(_drop_caches)

    @property
    def parts(self) -> tuple[nn.Module, ...]:
        """Patch embedding, stages and neck, in the order of computation."""
        return (self.patch_embed, *self.stages, self.neck)

    @property
    def frozen(self) -> nn.Sequential:
        """The parts that stay as loaded: Bx3x256x256 -> what ``trained`` takes."""
        return nn.Sequential(*self.parts[: self._frozen])

    def freeze(self, *, trained_stages: int = 0) -> None:
        """Keep the encoder as loaded: no gradient, no change of running statistics.

        Args:
            trained_stages: number of stages at the end that are still trained, with the neck; with 0 nothing is.

        Raises:
            InputError: more than there are stages.
        """
        if not 0 <= trained_stages <= len(self.stages):
            raise InputError("arguments", "trained_stages", trained_stages, f"0 to {len(self.stages)}")
        self._frozen = len(self.parts) - (trained_stages + 1 if trained_stages else 0)
        self.frozen.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> TinyViT:
        """Switch to training; frozen parts stay in evaluation."""
        super().train(mode and self._frozen < len(self.parts))
        self.frozen.eval()
        return self

    def trained(self, x: torch.Tensor) -> torch.Tensor:
        """Return the embedding for the output of the frozen parts, or for the image if none are frozen."""
        return self._compute(self.parts[self._frozen :], x)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Encode an image.

        Args:
            image: Bx3x256x256, min-max scaled to [0, 1], zero padded at the right and the bottom.

        Returns:
            Bx256x64x64.
        """
        return self._compute(self.parts, image)

    def _compute(self, parts: Sequence[nn.Module], x: torch.Tensor) -> torch.Tensor:
        for part in parts:
            again = self.recompute and part.training and part in self.stages
            x = recompute(part, x) if again else part(x)
        return x


def _drop_caches(network: TinyViT, _: object) -> None:
    training = network.training
    # Depending on its version, timm clears them on any mode switch or only on train(True): switch frozen parts as well.
    nn.Module.train(network)
    network.train(training)
