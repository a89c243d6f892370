"""Other starting weights for the image encoder: from scratch, or from natural images (MCP-MedSAM, Table 4)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import torch
from timm.layers import trunc_normal_
from timm.models import load_state_dict
from torch import nn

from custom.atomic_write import write_whole
from custom.checkpoints.loading import convert_published, read_state_dict
from custom.errors import InputError
from custom.lite_medsam import lite_medsam_path
from custom.networks.clip import _local_folder
from custom.networks.encoders.tiny_vit import TinyViT

logger = logging.getLogger(__name__)

SCRATCH = "scratch"
_ALLOWED = "scratch, a hub name of timm's tiny_vit_5m_224, or its weights as a local file (.safetensors, .pth)"


def lite_medsam_with_encoder(encoder: str, path: str | PathLike[str], *, seed: int = 0) -> str:
    """Write LiteMedSAM's weights with another image encoder, in LiteMedSAM's layout, to start a training from.

    Only the encoder differs from a start from LiteMedSAM, so that only the encoder is compared.

    Args:
        encoder: "scratch"; or natural-image weights of timm's ``tiny_vit_5m_224`` by hub name or as a local file.
        path: the checkpoint to write; its folder is created if missing.
        seed: seed of all random values.

    Returns:
        ``path``.

    Raises:
        InputError: the weights are not available, or belong to another network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = TinyViT()
        network.apply(_start_linear)
    if encoder != SCRATCH:
        network.load_state_dict(convert_timm(_timm_weights(encoder), network.state_dict(), source=encoder))
    fresh = network.state_dict()
    tensors = read_state_dict(lite_medsam_path())
    for name, value in tensors.items():
        part, _, own_name = next(iter(convert_published({name: value})), "").partition(".")
        if part == "image_encoder" and own_name in fresh:
            tensors[name] = fresh[own_name]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_whole(Path(path), lambda file: torch.save(tensors, file))
    logger.info("%s: LiteMedSAM with its image encoder from %s", path, encoder)
    return str(path)


def convert_timm(
    tensors: Mapping[str, torch.Tensor], encoder: Mapping[str, torch.Tensor], *, source: str = "tiny_vit"
) -> dict[str, torch.Tensor]:
    """Convert the weights of timm's ``tiny_vit_5m_224`` to this encoder's layout.

    timm merges at the start of a stage, this layout at the end of the one before. The patch embedding (1x1 instead of
    strided 3x3 convolutions) and SAM's neck have no counterpart and keep their values; the classifier is left out.
    The two larger networks of timm, ``tiny_vit_11m_224`` and ``tiny_vit_21m_224``, have other widths.

    Args:
        tensors: timm's tensors.
        encoder: tensors of a ``TinyViT``, the values of what timm does not have.
        source: where the tensors came from, for the error.

    Returns:
        All tensors of a ``TinyViT``.

    Raises:
        InputError: a tensor is missing or has another shape.
    """
    moved = {}
    for name, value in tensors.items():
        stage, _, rest = name.removeprefix("stages.").partition(".downsample.")
        moved[f"stages.{int(stage) - 1}.merge.{rest}" if rest and stage.isdigit() else name] = value
    converted = dict(encoder)
    for name, value in encoder.items():
        if not name.startswith("stages."):
            continue
        if name not in moved or moved[name].shape != value.shape:
            found = f"{name} of shape {tuple(moved[name].shape)}" if name in moved else f"no {name}"
            raise InputError(source, "image encoder", found, "the weights of timm's tiny_vit_5m_224")
        converted[name] = moved[name]
    return converted


def _start_linear(module: nn.Module) -> None:
    """Start a linear layer as TinyViT's authors do; convolutions and norms already start that way."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def _timm_weights(name: str) -> dict[str, torch.Tensor]:
    try:
        path = Path(name).expanduser()
        if not path.is_file():
            path = _local_folder(name) / "model.safetensors"
        return load_state_dict(str(path), weights_only=True)
    except Exception as error:  # the hub client and the readers raise many types; to the user they mean the same
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise InputError("image encoder", name, reason, _ALLOWED) from None
