"""From a collated batch to the network's arguments: ``prepare_batch`` of MONAI's training and evaluation engines."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from monai.engines import PrepareBatch

from custom.engines.interaction import SimulatedClicks
from custom.modalities import UNKNOWN_MODALITY
from custom.networks.clip import FrozenCLIP
from custom.prompts import Prompts


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
        clicks: corrects the masks of each batch by clicks; the batch then has the views of
            ``custom.transforms.RandViewsd``. None prompts once.
    """

    def __init__(
        self,
        *,
        clip: FrozenCLIP | None = None,
        full_output: bool = True,
        tell_modality: bool = True,
        clicks: SimulatedClicks | None = None,
    ) -> None:
        self.clip, self.full_output, self.tell_modality, self.clicks = clip, full_output, tell_modality, clicks

    def __call__(
        self,
        batchdata: Mapping[str, torch.Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: object,
    ) -> tuple[torch.Tensor, object, tuple, dict[str, object]]:
        """Return (image, target, (prompts,), options) as MONAI's engines expect."""

        def move(key: str) -> torch.Tensor:
            return batchdata[key].to(device=device, non_blocking=non_blocking, **kwargs)

        image, label, known = move("image"), move("label"), move("modality_index")
        modality = move("modality_prompt") if "modality_prompt" in batchdata else known
        prompts = Prompts(boxes=move("boxes"), crops=move("crop"), modality=modality)
        if not self.tell_modality:
            prompts = prompts._replace(modality=torch.full_like(known, UNKNOWN_MODALITY))
        if "image_feature" in batchdata:
            prompts = prompts._replace(image_features=move("image_feature"))
        elif self.clip is not None:
            prompts = prompts._replace(image_features=self.clip.to(device).encode_image(move("clip_crop")))
        if not self.full_output:
            return image, label, (prompts,), {}
        options: dict[str, object] = {"full_output": True}
        if self.clicks is not None:
            prompts = prompts._replace(views=move("views"), view_boxes=move("view_boxes"))
            prompts, options["next_prompts"] = self.clicks.start(image, prompts, label, move("image_boxes"))
        return image, {"label": label, "modality": known}, (prompts,), options
