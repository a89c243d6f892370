"""The four switches of the prompt encoder (Table 3 of the paper)."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class PromptComponents:
    """Which prompt components are on. With all of them off, the network is LiteMedSAM.

    Attributes:
        clip_text: CLIP text feature of "{Modality} Image" in the modality prompt.
        modality_embedding: learned row of the modality in the modality prompt.
        clip_image: CLIP image feature of the crop, the sparse content prompt.
        content_cnn: CNN on the crop, the dense content prompt; if off, the dense prompt is the learned vector.
    """

    clip_text: bool = True
    modality_embedding: bool = True
    clip_image: bool = True
    content_cnn: bool = True

    @property
    def modality_prompt(self) -> bool:
        """Whether there is a modality token, and so a modality branch in the decoder."""
        return self.clip_text or self.modality_embedding

    @property
    def content_prompt(self) -> bool:
        """Whether any part of the content prompt is on, and so the content branch in the decoder."""
        return self.clip_image or self.content_cnn

    def to_tensor(self) -> torch.Tensor:
        """Return the four switches as a uint8 tensor, as stored in checkpoints."""
        return torch.tensor(astuple(self), dtype=torch.uint8)

    @classmethod
    def from_tensor(cls, switches: torch.Tensor) -> PromptComponents:
        """Inverse of ``to_tensor``."""
        clip_text, modality_embedding, clip_image, content_cnn = (bool(s) for s in switches.tolist())
        return cls(
            clip_text=clip_text,
            modality_embedding=modality_embedding,
            clip_image=clip_image,
            content_cnn=content_cnn,
        )
