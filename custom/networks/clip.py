"""Frozen CLIP towers for the modality prompt (text) and the content prompt (image).

Papers: CLIP, Radford et al., ICML 2021; PubMedCLIP, Eslami et al., EACL Findings 2023. The default is PubMedCLIP, as in
MCP-MedSAM, Section 3.3.1. Any CLIP of transformers or open_clip can be used, from a hub or from a local folder.
"""

from __future__ import annotations

import logging
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from custom.errors import InputError

logger = logging.getLogger(__name__)

PUBMED_CLIP = "flaviagiammarino/pubmed-clip-vit-base-patch32"
CLIP_CROP_SIZE = 224
_PUBMED_WIDTH = 512
_HUB_TIMEOUT_S = 5.0
_WEIGHT_FILES = ["*.json", "*.txt", "*.safetensors", "pytorch_model.bin", "open_clip_pytorch_model.bin"]


class FrozenCLIP(nn.Module):
    """Image and text features of a CLIP that is never trained.

    Attributes:
        width: width F of the features.
    """

    def __init__(self, *, image_tower: nn.Module, text_tower: nn.Module, width: int) -> None:
        super().__init__()
        self.image_tower, self.text_tower, self.width = image_tower, text_tower, width
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> FrozenCLIP:
        """Stay in evaluation mode, whatever ``mode`` is."""
        return super().train(False)

    @torch.no_grad()
    def encode_image(self, crop: torch.Tensor) -> torch.Tensor:
        """Encode crops: ...x3x224x224 in [0, 1] -> ...xF. As published, without CLIP's mean and deviation."""
        device = next(self.image_tower.parameters()).device
        flat = crop.flatten(0, -4).to(device)  # ...x3x224x224 -> Rx3x224x224
        return self.image_tower(flat).float().unflatten(0, crop.shape[:-3])

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        """Encode M texts -> MxF."""
        return self.text_tower(list(texts)).float()


class _TransformersImage(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.model.visual_projection(self.model.vision_model(pixel_values=image).pooler_output)


class _TransformersText(nn.Module):
    def __init__(self, model: nn.Module, tokenizer: object) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer

    def forward(self, texts: list[str]) -> torch.Tensor:
        tokens = self.tokenizer(texts, padding=True, return_tensors="pt").to(self.model.device)
        return self.model.text_projection(self.model.text_model(**tokens).pooler_output)


class _OpenCLIPText(nn.Module):
    def __init__(self, model: nn.Module, tokenizer: object) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer

    def forward(self, texts: list[str]) -> torch.Tensor:
        device = next(self.model.parameters()).device
        return self.model.encode_text(self.tokenizer(texts).to(device))


def load_clip(name: str | None = "auto") -> FrozenCLIP | None:
    """Load a frozen CLIP.

    Args:
        name: ``"auto"`` for PubMedCLIP if it is available; ``"none"`` for no CLIP; a local folder; a hub name such as
            ``"microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"``; or ``"open_clip:ARCHITECTURE:WEIGHTS"``,
            WEIGHTS being a file or a tag of open_clip.

    Returns:
        The towers, or None for ``"none"`` and, with one warning, for ``"auto"`` if PubMedCLIP is not available.

    Raises:
        InputError: a CLIP given by name is not available.
    """
    if name is None or name == "none":
        return None
    wanted = PUBMED_CLIP if name == "auto" else name
    try:
        return _load(wanted)
    except Exception as error:  # the hub clients raise many types; to the user they all mean: not available
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        allowed = "a reachable hub name, or a local folder with its files (--clip /path/to/folder), or none"
        if name != "auto":
            raise InputError("clip", wanted, reason, allowed) from None
        logger.warning(
            "CLIP %s is not available (%s): running with the CLIP components off. To use it, give a local folder with "
            "its files: --clip /path/to/folder",
            wanted,
            reason,
        )
        return None


def clip_width(name: str | None = "auto") -> int:
    """Return the width F of a CLIP's features, by its name as in ``load_clip``.

    PubMedCLIP's width, for "auto" and without a CLIP, is known without looking for it.

    Raises:
        InputError: a CLIP given by name is not available.
    """
    clip = None if name == "auto" else load_clip(name)
    return _PUBMED_WIDTH if clip is None else clip.width


def _load(name: str) -> FrozenCLIP:
    if name.startswith("open_clip:"):
        architecture, _, weights = name.removeprefix("open_clip:").partition(":")
        return _load_open_clip(architecture, pretrained=weights or None)
    folder = _local_folder(name)
    if (folder / "open_clip_config.json").is_file():
        return _load_open_clip(f"local-dir:{folder}")
    return _load_transformers(folder)


def _local_folder(name: str) -> Path:
    """Return the folder that holds a CLIP's files: the one named, the hub's cache, or a fresh download."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    if Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    if name.startswith((".", "/", "~")):
        raise FileNotFoundError(f"no folder {name}")
    try:
        return Path(snapshot_download(name, local_files_only=True, allow_patterns=_WEIGHT_FILES))
    except LocalEntryNotFoundError:
        pass
    if constants.HF_HUB_OFFLINE or not _hub_answers(constants.ENDPOINT):
        raise ConnectionError(f"not in the cache, and {constants.ENDPOINT} does not answer")
    return Path(snapshot_download(name, allow_patterns=_WEIGHT_FILES))


def _hub_answers(endpoint: str) -> bool:
    """Ask once, with a short timeout: without a network the hub client would retry for half a minute."""
    try:
        urllib.request.urlopen(endpoint, timeout=_HUB_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def _load_transformers(folder: Path) -> FrozenCLIP:
    from transformers import AutoTokenizer, CLIPModel

    model = CLIPModel.from_pretrained(folder, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return FrozenCLIP(
        image_tower=_TransformersImage(model),
        text_tower=_TransformersText(model, tokenizer),
        width=model.config.projection_dim,
    )


def _load_open_clip(architecture: str, pretrained: str | None = None) -> FrozenCLIP:
    import open_clip

    # required: without weights open_clip would only warn and use random ones
    model = open_clip.create_model(architecture, pretrained=pretrained, require_pretrained=True)
    text_tower = _OpenCLIPText(model, open_clip.get_tokenizer(architecture))
    return FrozenCLIP(image_tower=model.visual, text_tower=text_tower, width=text_tower(["width"]).shape[-1])
