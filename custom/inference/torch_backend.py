"""Run the network with PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from custom.images.frame import crop_box
from custom.inference.backend import Decoded
from custom.networks import FrozenCLIP, MCPMedSAM, MCPMedSAMOutput
from custom.networks.clip import CLIP_CROP_SIZE
from custom.prompts import Prompts


class TorchBackend:
    """A ``Backend`` on the device the network is on.

    Args:
        network: the network, in evaluation mode.
        clip: the frozen CLIP, if the network takes its image feature.
        bfloat16: compute in bfloat16.
    """

    def __init__(self, network: MCPMedSAM, clip: FrozenCLIP | None = None, *, bfloat16: bool = False) -> None:
        self.network, self.clip, self.bfloat16 = network, clip, bfloat16
        self.device = next(network.parameters()).device

    @property
    def uses_modality(self) -> bool:
        """Whether the network takes a modality prompt."""
        return self.network.components.modality_prompt

    @property
    def crop_size(self) -> int:
        """Side of the crops in pixels."""
        return self.network.crop_size

    @property
    def takes_clicks(self) -> bool:
        """Whether the weights were trained with clicks."""
        return self.network.takes_clicks

    @property
    def click_tokens(self) -> bool:
        """Whether clicks change the decoder's answer to a box."""
        return self.network.prompt_encoder.click_tokens

    @property
    def clip_image(self) -> bool:
        """Whether the network takes the CLIP feature of each crop."""
        return self.network.components.clip_image

    @contextmanager
    def _inference(self) -> Iterator[None]:
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            yield

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.tensor(array, device=self.device)  # a copy: the input may be read-only

    def encode(self, images: np.ndarray) -> list[torch.Tensor]:
        """Encode images, Bx3x256x256, into embeddings 1x256x64x64."""
        with self._inference():
            return list(self.network.encode_image(self._tensor(images)).split(1))

    def clip_features(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray | None:
        """Return CLIP's feature of the image inside each box, NxF, or None."""
        if self.clip is None or not self.clip_image:
            return None
        crops = np.stack([crop_box(image, box, CLIP_CROP_SIZE) for box in boxes])
        with self._inference():
            return self.clip.to(self.device).encode_image(self._tensor(crops)).float().cpu().numpy()

    def encode_content(self, crops: np.ndarray) -> np.ndarray | None:
        """Return the dense content prompt of crops, Nx3xSxS -> Nx256x64x64; None without the content CNN."""
        if not self.network.components.content_cnn:
            return None
        with self._inference():
            return self.network.prompt_encoder.content_map(self._tensor(crops)).float().cpu().numpy()

    def decode(self, embedding: torch.Tensor, prompts: Prompts, answer: Decoded | None = None) -> Decoded:
        """Decode N objects of one image; see ``Backend``."""
        modality = torch.tensor([prompts.modality], device=self.device)
        given = prompts._replace(modality=None).map(lambda value: self._tensor(value).unsqueeze(0))  # N... -> 1xN...
        before = None
        if answer is not None:
            masks, iou = (self._tensor(value).unsqueeze(0) for value in (answer.mask_logits, answer.iou))
            logits = answer.modality_logits
            before = MCPMedSAMOutput(masks, iou, None if logits is None else self._tensor(logits), None, None)
        with self._inference():
            output = self.network.decode(embedding, given._replace(modality=modality), answer=before)
        masks, iou = (value[0].float().cpu().numpy() for value in (output.mask_logits, output.iou))
        logits = output.modality_logits
        return Decoded(masks, iou, None if logits is None else logits.float().cpu().numpy())
