"""MCP-MedSAM: a light, box-prompted segmentation network for eleven imaging modalities.

Paper: MCP-MedSAM, Lyu, Gao and Staring, MELBA 2025, https://doi.org/10.59275/j.melba.2025-4849.
"""

from __future__ import annotations

from os import PathLike
from typing import NamedTuple

import torch
from torch import nn
from torchvision.ops import roi_align

from custom.errors import InputError
from custom.images.frame import IMAGE_SIZE
from custom.modalities import MODALITIES, UNKNOWN_MODALITY
from custom.networks.embedding_cache import EmbeddingCache
from custom.networks.mask_decoder import MaskDecoder
from custom.networks.mask_refinement import REFINEMENT_SIZE, MaskRefinement
from custom.networks.prompt_encoder import PromptEncoder
from custom.networks.prompt_switches import PromptComponents
from custom.networks.tiny_vit import EMBEDDING_SIZE, TinyViT

REFINEMENT = "mask_refinement"
# The modules of prompt encoder and mask decoder that LiteMedSAM does not have.
_NEW_BRANCHES = frozenset(
    "modality_embed text_mlp modality_mlp image_mlp content_cnn "
    "film_weight film_bias modality_block modality_head content_block join join_block".split()
)


class MCPMedSAMOutput(NamedTuple):
    """Everything the network predicts for B images with N boxes each; R = B * N rows, image by image.

    Attributes:
        mask_logits: BxNx256x256.
        iou: predicted IoU of each mask, BxN.
        modality_logits: RxM, or None without a modality prompt.
        sparse_content: sparse content token as it enters the decoder, RxC, or None without CLIP's image feature.
        dense_content: spatial mean of the dense content prompt, RxC, or None without the content CNN.
    """

    mask_logits: torch.Tensor
    iou: torch.Tensor
    modality_logits: torch.Tensor | None
    sparse_content: torch.Tensor | None
    dense_content: torch.Tensor | None


class MCPMedSAM(nn.Module):
    """Segment what is inside a box; the image is encoded once for any number of boxes.

    A new network is in evaluation mode: MONAI's trainer switches it to training itself.

    Args:
        clip_text: use the CLIP text feature in the modality prompt.
        modality_embedding: use the learned embedding in the modality prompt.
        clip_image: use the CLIP image feature as sparse content prompt.
        content_cnn: use the CNN on the crop as dense content prompt.
        clip_width: width of the CLIP features.
        content_size: side of the crops for the content CNN; 32 instead of the paper's 64 takes a quarter of its time.
        mask_refinement: correct the mask inside the box by a second look at the crop (``MaskRefinement``).
        num_modalities: number of modalities.
        freeze_image_encoder: keep the image encoder as loaded: no gradient, no change of its running statistics.
        trained_stages: number of stages at the end of a frozen encoder that are trained nevertheless, with the neck.
        recompute: in training, do not keep the image encoder's activations but compute them again for the gradient.
        embedding_cache: folder for cached outputs of the frozen part of the encoder; None encodes every time.

    Example:
        >>> network = MCPMedSAM(clip_text=False, clip_image=False)
        >>> network(torch.zeros(2, 3, 256, 256)).shape
        torch.Size([2, 1, 256, 256])
        >>> network.predict(torch.zeros(1, 3, 256, 256), torch.tensor([[[9, 9, 80, 80], [5, 8, 40, 44]]])).iou.shape
        torch.Size([1, 2])
    """

    def __init__(
        self,
        *,
        clip_text: bool = True,
        modality_embedding: bool = True,
        clip_image: bool = True,
        content_cnn: bool = True,
        clip_width: int = 512,
        content_size: int = EMBEDDING_SIZE,
        mask_refinement: bool = False,
        num_modalities: int = len(MODALITIES),
        freeze_image_encoder: bool = False,
        trained_stages: int = 0,
        recompute: bool = False,
        embedding_cache: str | PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("embedding_cache", embedding_cache), ("trained_stages", trained_stages)):
            if value and not freeze_image_encoder:
                raise InputError("arguments", name, value, "only with freeze_image_encoder True")
        components = PromptComponents(
            clip_text=clip_text,
            modality_embedding=modality_embedding,
            clip_image=clip_image,
            content_cnn=content_cnn,
        )
        self.image_encoder = TinyViT()
        self.image_encoder.recompute = recompute
        self.prompt_encoder = PromptEncoder(
            components=components, num_modalities=num_modalities, clip_width=clip_width, content_size=content_size
        )
        self.mask_decoder = MaskDecoder(num_modalities=num_modalities)
        self.mask_refinement = MaskRefinement(on=mask_refinement)
        if freeze_image_encoder:
            self.image_encoder.freeze(trained_stages=trained_stages)
        self.embedding_cache = None if embedding_cache is None else EmbeddingCache(embedding_cache)
        self.eval()

    @property
    def components(self) -> PromptComponents:
        """Which prompt components take part."""
        return self.prompt_encoder.components

    @property
    def takes_crops(self) -> bool:
        """Whether the network uses the image inside each box."""
        return self.components.content_cnn or self.mask_refinement.on

    @property
    def crop_size(self) -> int:
        """Side of the crops in pixels: the larger one of content CNN and refinement; the other shrinks them."""
        return max(self.prompt_encoder.content_size, REFINEMENT_SIZE if self.mask_refinement.on else 0)

    def start_as_lite_medsam(self) -> None:
        """Set the new branches to identity or zero, so that training starts from LiteMedSAM's accuracy."""
        self.prompt_encoder.start_as_identity()
        self.mask_decoder.start_as_identity()
        self.mask_refinement.start_as_identity()

    def encode_image(self, image: torch.Tensor) -> torch.Tensor:
        """Encode images: Bx3x256x256 in [0, 1] -> Bx256x64x64."""
        if image.ndim != 4 or image.shape[1:] != (3, IMAGE_SIZE, IMAGE_SIZE):
            raise ValueError(f"image: found shape {tuple(image.shape)}; allowed: (B, 3, {IMAGE_SIZE}, {IMAGE_SIZE})")
        if self.embedding_cache is None:
            return self.image_encoder(image)
        return self.image_encoder.trained(self.embedding_cache.encode(self.image_encoder.frozen, image))

    def decode(
        self,
        embedding: torch.Tensor,
        boxes: torch.Tensor,
        modality: torch.Tensor | None = None,
        crop: torch.Tensor | None = None,
        image_feature: torch.Tensor | None = None,
        text_feature: torch.Tensor | None = None,
    ) -> MCPMedSAMOutput:
        """Decode N boxes of each of B embedded images; arguments as in ``predict``, the crop not optional."""
        boxes = _as_boxes(boxes, embedding)
        batch, n = boxes.shape[:2]
        if modality is None:
            modality = torch.full((batch,), UNKNOWN_MODALITY, device=embedding.device)
        if modality.shape != (batch,):
            raise ValueError(f"modality: found shape {tuple(modality.shape)}; allowed: ({batch},)")
        if crop is None and self.takes_crops:
            raise ValueError(f"crop: found None; allowed: ({batch}, {n}, 3, S, S)")
        clip_width = self.prompt_encoder.text_table.shape[1]
        boxes = boxes.reshape(-1, 4).to(embedding.device, torch.float32)  # BxNx4 -> Rx4
        crop = _rows(crop, "crop", batch, n, (3, "S", "S"))
        prompts = self.prompt_encoder(
            boxes,
            modality.to(embedding.device).repeat_interleave(n),
            crop,
            _rows(image_feature, "image_feature", batch, n, (clip_width,)),
            _rows(text_feature, "text_feature", batch, n, (clip_width,)),
        )
        decoded = self.mask_decoder(
            embedding.repeat_interleave(n, dim=0),  # BxCxHxW -> RxCxHxW
            self.prompt_encoder.position.grid(EMBEDDING_SIZE).to(embedding.dtype),
            prompts,
        )
        mask_logits = decoded.mask_logits
        if self.mask_refinement.on:
            mask_logits = self.mask_refinement(mask_logits, crop, boxes)
        return MCPMedSAMOutput(
            mask_logits=mask_logits.unflatten(0, (batch, n)),  # RxHxW -> BxNxHxW
            iou=decoded.iou.unflatten(0, (batch, n)),
            modality_logits=decoded.modality_logits,
            sparse_content=prompts.content,
            dense_content=prompts.dense.mean(dim=(2, 3)) if self.components.content_cnn else None,
        )

    def predict(
        self,
        image: torch.Tensor,
        boxes: torch.Tensor | None = None,
        modality: torch.Tensor | None = None,
        crop: torch.Tensor | None = None,
        image_feature: torch.Tensor | None = None,
        text_feature: torch.Tensor | None = None,
    ) -> MCPMedSAMOutput:
        """Encode images and decode their boxes.

        Args:
            image: Bx3x256x256, min-max scaled to [0, 1], zero padded at the right and the bottom.
            boxes: BxNx4 (or Bx4), x_min y_min x_max y_max in pixels of the 256 frame; the whole frame by default.
            modality: B indices into ``MODALITIES``, negative for unknown; unknown by default.
            crop: native image inside each box, BxNx3xSxS (or Bx3xSxS) in [0, 1]; cut out of ``image`` by default.
            image_feature: CLIP feature of each crop, BxNxF (or BxF); zeros by default.
            text_feature: CLIP feature of the modality's text, BxNxF, Bx1xF or BxF; from the stored table by default.

        Raises:
            ValueError: an argument of the wrong shape; it names the argument, its shape and the allowed one.
        """
        embedding = self.encode_image(image)
        boxes = _as_boxes(boxes, image)
        if crop is None and self.takes_crops:
            crop = _crop_boxes(image, boxes, self.crop_size)
        return self.decode(embedding, boxes, modality, crop, image_feature, text_feature)

    def forward(
        self,
        image: torch.Tensor,
        boxes: torch.Tensor | None = None,
        modality: torch.Tensor | None = None,
        crop: torch.Tensor | None = None,
        image_feature: torch.Tensor | None = None,
        text_feature: torch.Tensor | None = None,
        full_output: bool = False,
    ) -> torch.Tensor | MCPMedSAMOutput:
        """Return mask logits (BxNx256x256), or with ``full_output`` all that ``predict`` returns."""
        output = self.predict(image, boxes, modality, crop, image_feature, text_feature)
        return output if full_output else output.mask_logits


def is_new_branch(name: str) -> bool:
    """Return whether a tensor, by its name, belongs to what MCP-MedSAM adds to LiteMedSAM."""
    part, branch, *_ = name.split(".")
    return part == REFINEMENT or branch in _NEW_BRANCHES


def _as_boxes(boxes: torch.Tensor | None, image: torch.Tensor) -> torch.Tensor:
    """Reshape boxes to BxNx4; None gives the whole frame."""
    if boxes is None:
        last = IMAGE_SIZE - 1
        return image.new_tensor([0, 0, last, last]).expand(len(image), 1, 4)
    if boxes.ndim == 2:
        boxes = boxes.unsqueeze(1)  # Bx4 -> Bx1x4
    if boxes.ndim != 3 or boxes.shape[0] != len(image) or boxes.shape[2] != 4:
        raise ValueError(f"boxes: found shape {tuple(boxes.shape)}; allowed: ({len(image)}, N, 4) or ({len(image)}, 4)")
    return boxes


def _rows(value: torch.Tensor | None, name: str, batch: int, n: int, item: tuple) -> torch.Tensor | None:
    """Reshape one value per box (BxNx...) or per image (Bx..., Bx1x...) to Rx..., R = B * N.

    ``item`` is the shape of one value: the first size is fixed, the others are free and only named.
    """
    if value is None:
        return None
    found = tuple(value.shape)
    if value.ndim == len(item) + 1:
        value = value.unsqueeze(1)  # Bx... -> Bx1x...
    fits = value.ndim == len(item) + 2 and value.shape[0] == batch and value.shape[1] in (1, n)
    if not fits or value.shape[2] != item[0]:
        sizes = ", ".join(map(str, item))
        raise ValueError(f"{name}: found shape {found}; allowed: ({batch}, {n}, {sizes}) or ({batch}, {sizes})")
    return value.expand(-1, n, *value.shape[2:]).flatten(0, 1)


def _crop_boxes(image: torch.Tensor, boxes: torch.Tensor, size: int) -> torch.Tensor:
    """Cut each box out of the network's own frame: BxNx3xSxS. A crop of the native image is sharper."""
    edges = boxes.to(image.dtype) + boxes.new_tensor([0, 0, 1, 1])  # both end pixels are inside the box
    crops = roi_align(image, list(edges), output_size=size, aligned=True)
    return crops.unflatten(0, boxes.shape[:2])  # Rx3xSxS -> BxNx3xSxS
