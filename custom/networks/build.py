"""Compose the network of its parts, as ``build_sam`` of SAM does."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

from custom.errors import InputError
from custom.modalities import MODALITIES
from custom.networks.embedding import EMBEDDING_SIZE
from custom.networks.embedding_cache import EmbeddingCache
from custom.networks.encoders import build_encoder
from custom.networks.mask_correction import MaskCorrection
from custom.networks.mask_decoder import MaskDecoder
from custom.networks.mask_refinement import MaskRefinement
from custom.networks.mcp_medsam import MCPMedSAM
from custom.networks.prompt_encoder import PromptEncoder
from custom.networks.prompt_switches import PromptComponents


def build_mcp_medsam(
    *,
    clip_text: bool = True,
    modality_embedding: bool = True,
    clip_image: bool = True,
    content_cnn: bool = True,
    clip_width: int = 512,
    content_size: int = EMBEDDING_SIZE,
    mask_refinement: bool = False,
    mask_correction: bool = False,
    num_modalities: int = len(MODALITIES),
    image_encoder: str = "tiny_vit",
    freeze_image_encoder: bool = False,
    trained_stages: int = 0,
    recompute: bool = False,
    embedding_cache: str | PathLike[str] | None = None,
    trained: Sequence[str] | None = None,
) -> MCPMedSAM:
    """Return a new network, in evaluation mode: MONAI's trainer switches it to training itself.

    Args:
        clip_text: use the CLIP text feature in the modality prompt.
        modality_embedding: use the learned embedding in the modality prompt.
        clip_image: use the CLIP image feature as sparse content prompt.
        content_cnn: use the CNN on the crop as dense content prompt.
        clip_width: width of the CLIP features.
        content_size: side of the crops for the content CNN; 32 instead of the paper's 64 takes a quarter of its time.
        mask_refinement: correct the mask inside the box by a second look at the crop (``MaskRefinement``).
        mask_correction: correct the mask by clicks (``MaskCorrection``).
        num_modalities: number of modalities.
        image_encoder: name of the image encoder, one of ``ENCODERS``.
        freeze_image_encoder: keep the image encoder as loaded: no gradient, no change of its running statistics.
        trained_stages: number of stages at the end of a frozen encoder that are trained nevertheless, with the neck.
        recompute: in training, do not keep the image encoder's activations but compute them again for the gradient.
        embedding_cache: folder for cached outputs of the frozen part of the encoder; None encodes every time.
        trained: the parts to train, e.g. "mask_correction"; what else there is stays as loaded. All by default.

    Raises:
        InputError: an argument that cannot be used.
    """
    for name, value in (("embedding_cache", embedding_cache), ("trained_stages", trained_stages)):
        if value and not freeze_image_encoder:
            raise InputError("arguments", name, value, "only with freeze_image_encoder True")
    encoder = build_encoder(image_encoder)
    encoder.recompute = recompute
    if freeze_image_encoder:
        encoder.freeze(trained_stages=trained_stages)
    components = PromptComponents(
        clip_text=clip_text, modality_embedding=modality_embedding, clip_image=clip_image, content_cnn=content_cnn
    )
    return MCPMedSAM(
        image_encoder=encoder,
        prompt_encoder=PromptEncoder(
            components=components, num_modalities=num_modalities, clip_width=clip_width, content_size=content_size
        ),
        mask_decoder=MaskDecoder(num_modalities=num_modalities),
        mask_refinement=MaskRefinement(on=mask_refinement),
        mask_correction=MaskCorrection(on=mask_correction),
        embedding_cache=None if embedding_cache is None else EmbeddingCache(embedding_cache),
        trained=trained,
    )
