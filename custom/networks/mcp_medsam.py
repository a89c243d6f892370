"""MCP-MedSAM: a light, prompted segmentation network for eleven imaging modalities.

Paper: MCP-MedSAM, Lyu, Gao and Staring, MELBA 2025, https://doi.org/10.59275/j.melba.2025-4849.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import nn

from custom.errors import InputError
from custom.images.frame import IMAGE_SIZE
from custom.modalities import UNKNOWN_MODALITY
from custom.networks.embedding import EMBEDDING_SIZE, EMBEDDING_WIDTH
from custom.networks.embedding_cache import EmbeddingCache
from custom.networks.frame_views import crop_frame, view_frame
from custom.networks.mask_correction import MaskCorrection
from custom.networks.mask_decoder import MaskDecoder
from custom.networks.mask_refinement import REFINEMENT_SIZE, MaskRefinement
from custom.networks.prompt_encoder import PromptEncoder
from custom.networks.prompt_switches import PromptComponents
from custom.prompts import NO_BOX, Prompts

REFINEMENT, CORRECTION = "mask_refinement", "mask_correction"
# The modules of prompt encoder and mask decoder that LiteMedSAM does not have.
_NEW_BRANCHES = frozenset(
    "modality_embed text_mlp modality_mlp image_mlp content_cnn mask_scale "
    "film_weight film_bias modality_block modality_head content_block join join_block".split()
)


class MCPMedSAMOutput(NamedTuple):
    """Everything the network predicts for B images with N objects each; R = B * N rows, image by image.

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
    """Segment what a box or clicks mean; the image is encoded once for any number of objects.

    A new network is in evaluation mode: MONAI's trainer switches it to training itself.

    Args:
        image_encoder: Bx3xSxS -> Bx256x64x64, see ``custom.networks.encoders``.
        prompt_encoder: prompts -> tokens and dense maps.
        mask_decoder: embedding and encoded prompts -> mask, predicted IoU and modality.
        mask_refinement: corrects masks inside boxes.
        mask_correction: corrects masks by clicks.
        embedding_cache: caches the outputs of the frozen part of the encoder; None encodes every time.
        trained: the parts to train, e.g. "mask_correction"; what else there is stays as loaded. All by default.

    Example:
        >>> network = build_mcp_medsam(clip_text=False, clip_image=False)
        >>> network(torch.zeros(2, 3, 256, 256)).shape
        torch.Size([2, 1, 256, 256])
        >>> boxes = torch.tensor([[[9, 9, 80, 80], [5, 8, 40, 44]]])
        >>> network.predict(torch.zeros(1, 3, 256, 256), Prompts(boxes=boxes)).iou.shape
        torch.Size([1, 2])
    """

    def __init__(
        self,
        *,
        image_encoder: nn.Module,
        prompt_encoder: PromptEncoder,
        mask_decoder: MaskDecoder,
        mask_refinement: MaskRefinement,
        mask_correction: MaskCorrection,
        embedding_cache: EmbeddingCache | None = None,
        trained: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.image_encoder, self.prompt_encoder, self.mask_decoder = image_encoder, prompt_encoder, mask_decoder
        self.mask_refinement, self.mask_correction = mask_refinement, mask_correction
        self.embedding_cache, self.trained = embedding_cache, None if trained is None else tuple(trained)
        if self.trained is not None:
            self._train_only(self.trained)
        self.eval()

    def _train_only(self, names: Sequence[str]) -> None:
        used: set[str] = set()
        for name, parameter in self.named_parameters():
            above = {part for part in names if name == part or name.startswith(f"{part}.")}
            parameter.requires_grad_(parameter.requires_grad and bool(above))
            used |= above
        unknown = next((name for name in names if name not in used), None)
        if unknown is not None:
            allowed = ", ".join(name for name, _ in self.named_children()) + ", or a part of these"
            raise InputError("arguments", "trained", repr(unknown), allowed)

    def train(self, mode: bool = True) -> MCPMedSAM:
        """Switch to training; what is not trained stays in evaluation."""
        super().train(mode and self.trained is None)
        parts = dict(self.named_modules())
        for name in self.trained or ():
            if name in parts:  # else it is a parameter
                parts[name].train(mode)
        return self

    @property
    def components(self) -> PromptComponents:
        """Which prompt components take part."""
        return self.prompt_encoder.components

    @property
    def takes_crops(self) -> bool:
        """Whether the network uses the image inside each box."""
        return self.components.content_cnn or self.mask_refinement.on

    @property
    def takes_clicks(self) -> bool:
        """Whether the weights were trained with clicks."""
        return self.mask_correction.on or self.prompt_encoder.click_tokens

    @property
    def crop_size(self) -> int:
        """Side of the crops in pixels: the larger one of content CNN and refinement; the other shrinks them."""
        return max(self.prompt_encoder.content_size, REFINEMENT_SIZE if self.mask_refinement.on else 0)

    def start_as_lite_medsam(self) -> None:
        """Set the new branches to identity or zero, so that training starts from LiteMedSAM's accuracy."""
        self.prompt_encoder.start_as_identity()
        self.mask_decoder.start_as_identity()
        self.mask_refinement.start_as_identity()
        self.mask_correction.start_as_identity()

    def encode_image(self, image: torch.Tensor) -> torch.Tensor:
        """Encode images: Bx3x256x256 in [0, 1] -> Bx256x64x64."""
        if image.ndim != 4 or image.shape[1:] != (3, IMAGE_SIZE, IMAGE_SIZE):
            raise ValueError(f"image: found shape {tuple(image.shape)}; allowed: (B, 3, {IMAGE_SIZE}, {IMAGE_SIZE})")
        if self.embedding_cache is None:
            return self.image_encoder(image)
        return self.image_encoder.trained(self.embedding_cache.encode(self.image_encoder.frozen, image))

    def decode(
        self, embedding: torch.Tensor, prompts: Prompts, *, answer: MCPMedSAMOutput | None = None
    ) -> MCPMedSAMOutput:
        """Decode N objects of each of B embedded images.

        Unless the prompt encoder has ``click_tokens``, the decoder answers which object is meant: by its box or,
        without one, by its first click. All clicks and the mask before them then correct this answer in the views.

        Args:
            embedding: BxCx64x64.
            prompts: as in ``predict``; crops, where the network takes them, are not optional. Without views nothing is
                corrected.
            answer: what this method gave for the same prompts without views; the decoder then does not run again. Only
                without ``click_tokens``.

        Raises:
            ValueError: a prompt of the wrong shape; it names the prompt, its shape and the allowed one.
        """
        prompts, batch, n = self._as_rows(prompts, embedding)
        if answer is None or self.prompt_encoder.click_tokens:
            answer = self._answer(embedding, prompts, batch, n)
        if prompts.views is None or not (prompts.correcting and self.mask_correction.on):
            return answer
        logits, iou = self.mask_correction(
            answer.mask_logits.flatten(0, 1),  # BxNxHxW -> RxHxW
            prompts.views,
            prompts.view_boxes,
            prompts.points,
            prompts.point_labels,
            prompts.masks,
        )
        return answer._replace(
            mask_logits=logits.unflatten(0, (batch, n)),  # RxHxW -> BxNxHxW
            iou=answer.iou + iou.unflatten(0, (batch, n)),
        )

    def _answer(self, embedding: torch.Tensor, prompts: Prompts, batch: int, n: int) -> MCPMedSAMOutput:
        """Run prompt encoder, decoder and refinement on R rows of prompts."""
        if not self.prompt_encoder.click_tokens:
            prompts = prompts.without_corrections()
        encoded = self.prompt_encoder(prompts)
        decoded = self.mask_decoder(
            embedding.repeat_interleave(n, dim=0),  # BxCxHxW -> RxCxHxW
            self.prompt_encoder.position.grid(EMBEDDING_SIZE).to(embedding.dtype),
            encoded,
        )
        mask_logits = decoded.mask_logits
        if self.mask_refinement.on:
            mask_logits = self.mask_refinement(mask_logits, prompts.crops, prompts.crop_boxes)
        sparse = encoded.tokens.get("content")
        return MCPMedSAMOutput(
            mask_logits=mask_logits.unflatten(0, (batch, n)),  # RxHxW -> BxNxHxW
            iou=decoded.iou.unflatten(0, (batch, n)),
            modality_logits=decoded.modality_logits,
            sparse_content=None if sparse is None else sparse[:, 0],
            dense_content=encoded.dense.mean(dim=(2, 3)) if self.components.content_cnn else None,
        )

    def _as_rows(self, prompts: Prompts, embedding: torch.Tensor) -> tuple[Prompts, int, int]:
        """Check prompts, and reshape BxN... to R...; return them, B and N."""
        boxes = _as_boxes(prompts.boxes, embedding)
        batch, n = boxes.shape[:2]
        modality = prompts.modality
        if modality is None:
            modality = torch.full((batch,), UNKNOWN_MODALITY, device=embedding.device)
        if modality.shape != (batch,):
            raise ValueError(f"modality: found shape {tuple(modality.shape)}; allowed: ({batch},)")
        if prompts.crops is None and self.takes_crops:
            raise ValueError(f"crops: found None; allowed: ({batch}, {n}, 3, S, S)")
        if prompts.points is not None and prompts.point_labels is None:
            raise ValueError(f"point_labels: found None; allowed: ({batch}, {n}, P)")
        clip_width = self.prompt_encoder.text_table.shape[1]
        frame = (IMAGE_SIZE, IMAGE_SIZE)
        shapes: dict[str, tuple] = {
            "points": ("P", 2),
            "point_labels": ("P",) if prompts.points is None else tuple(prompts.points.shape[-2:-1]),
            "masks": frame,
            "crops": (3, "S", "S"),
            "crop_boxes": (4,),
            "content": (EMBEDDING_WIDTH, EMBEDDING_SIZE, EMBEDDING_SIZE),
            "views": (3, "V", "V"),
            "view_boxes": (4,),
            "image_features": (clip_width,),
            "text_features": (clip_width,),
        }
        rows = {name: _rows(getattr(prompts, name), name, batch, n, item) for name, item in shapes.items()}
        boxes = boxes.reshape(-1, 4).to(embedding.device, torch.float32)  # BxNx4 -> Rx4
        if rows["crop_boxes"] is None:
            rows["crop_boxes"] = boxes
        return Prompts(boxes=boxes, modality=modality.to(embedding.device).repeat_interleave(n), **rows), batch, n

    def predict(self, image: torch.Tensor, prompts: Prompts | None = None) -> MCPMedSAMOutput:
        """Encode images and decode their objects.

        Args:
            image: Bx3x256x256, min-max scaled to [0, 1], zero padded at the right and the bottom.
            prompts: prompts of N objects on each image, BxN...; of a single object also B.... Without boxes the whole
                frame is the box; crops and views are cut out of ``image`` by default (those of the native image are
                sharper), CLIP's image features are zeros and its text features those of the stored table.

        Raises:
            ValueError: a prompt of the wrong shape; it names the prompt, its shape and the allowed one.
        """
        embedding, prompts = self.encode_image(image), self._with_crops(image, prompts or Prompts())
        if prompts.views is not None or not (prompts.correcting and self.mask_correction.on):
            return self.decode(embedding, prompts)
        answer = self.decode(embedding, prompts)
        return self.decode(embedding, view_frame(image, prompts, answer.mask_logits), answer=answer)

    def _with_crops(self, image: torch.Tensor, prompts: Prompts) -> Prompts:
        """Cut crops that are missing out of the network's own frame: inside the boxes, without one of all of it."""
        boxes = _as_boxes(prompts.boxes, image)
        prompts = prompts._replace(boxes=boxes)
        if prompts.crops is None and self.takes_crops:
            places = torch.where(boxes[..., 2:3] <= NO_BOX, _as_boxes(None, image).to(boxes.dtype), boxes)
            prompts = prompts._replace(crops=crop_frame(image, places, self.crop_size), crop_boxes=places)
        return prompts

    def forward(
        self,
        image: torch.Tensor,
        prompts: Prompts | None = None,
        *,
        full_output: bool = False,
        next_prompts: Callable[[Prompts, MCPMedSAMOutput], Prompts | None] | None = None,
    ) -> torch.Tensor | MCPMedSAMOutput | list[MCPMedSAMOutput]:
        """Segment objects, or go on correcting them.

        Args:
            image: as in ``predict``.
            prompts: as in ``predict``.
            full_output: return all that ``predict`` returns.
            next_prompts: makes of the last prompts and the network's answer the next prompts of the same objects, as a
                user does; None ends it. The image is encoded once for all passes. The first prompts have no views.

        Returns:
            Mask logits BxNx256x256, with ``full_output`` an ``MCPMedSAMOutput``, with ``next_prompts`` one for each
            pass.
        """
        if next_prompts is None:
            output = self.predict(image, prompts)
            return output if full_output else output.mask_logits
        embedding = self.encode_image(image)
        prompts, outputs, answer = self._with_crops(image, prompts or Prompts()), [], None
        while prompts is not None:
            outputs.append(self.decode(embedding, prompts, answer=answer))
            answer = answer or outputs[0]
            prompts = next_prompts(prompts, outputs[-1])
        return outputs


def is_new_branch(name: str) -> bool:
    """Return whether a tensor, by its name, belongs to what MCP-MedSAM adds to LiteMedSAM."""
    part, branch, *_ = name.split(".")
    return part in (REFINEMENT, CORRECTION) or branch in _NEW_BRANCHES


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

    ``item`` is the shape of one value: numbers are fixed sizes, names are free ones.
    """
    if value is None:
        return None
    found = tuple(value.shape)
    if value.ndim == len(item) + 1:
        value = value.unsqueeze(1)  # Bx... -> Bx1x...
    fits = value.ndim == len(item) + 2 and value.shape[0] == batch and value.shape[1] in (1, n)
    if not fits or any(isinstance(size, int) and size != n for size, n in zip(item, value.shape[2:], strict=True)):
        sizes = ", ".join(map(str, item))
        raise ValueError(f"{name}: found shape {found}; allowed: ({batch}, {n}, {sizes}) or ({batch}, {sizes})")
    return value.expand(-1, n, *value.shape[2:]).flatten(0, 1)
