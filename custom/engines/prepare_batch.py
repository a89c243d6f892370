"""From a collated batch to the network's arguments: ``prepare_batch`` of MONAI's training and evaluation engines."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from monai.engines import PrepareBatch

from custom.modalities import UNKNOWN_MODALITY
from custom.networks.clip import FrozenCLIP


class PromptPrepareBatch(PrepareBatch):
    """Move image, prompts and target to the device; CLIP's image tower runs here, batched and on the device.

    If the batch has an "image_feature" (``custom.transforms.LoadClipFeatured``), CLIP is not run. If it has a
    "modality_prompt" (``custom.transforms.RandUnknownModalityd``), that is the modality of the prompt.

    Args:
        clip: the frozen CLIP whose feature of "clip_crop" is the sparse content prompt, or None.
        full_output: ask the network for everything it predicts, and give the loss mask and modality; otherwise mask
            logits and masks only.
        tell_modality: prompt with the batch's modality; False prompts with an unknown one, so that the network's
            classifier is used as for users who declare no modality.
    """

    def __init__(self, *, clip: FrozenCLIP | None = None, full_output: bool = True, tell_modality: bool = True) -> None:
        self.clip, self.full_output, self.tell_modality = clip, full_output, tell_modality

    def __call__(
        self,
        batchdata: Mapping[str, torch.Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: object,
    ) -> tuple[torch.Tensor, object, tuple, dict[str, object]]:
        """Return (image, target, (), prompts) as MONAI's engines expect."""

        def move(key: str) -> torch.Tensor:
            return batchdata[key].to(device=device, non_blocking=non_blocking, **kwargs)

        known = move("modality_index")
        declared = move("modality_prompt") if "modality_prompt" in batchdata else known
        prompts: dict[str, object] = {"boxes": move("boxes"), "modality": declared, "crop": move("crop")}
        if not self.tell_modality:
            prompts["modality"] = torch.full_like(known, UNKNOWN_MODALITY)
        if "image_feature" in batchdata:
            prompts["image_feature"] = move("image_feature")
        elif self.clip is not None:
            prompts["image_feature"] = self.clip.to(device).encode_image(move("clip_crop"))
        label = move("label")
        if not self.full_output:
            return move("image"), label, (), prompts
        prompts["full_output"] = True
        return move("image"), {"label": label, "modality": known}, (), prompts
