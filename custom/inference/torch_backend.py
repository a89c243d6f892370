"""Run the network with PyTorch: the reference, and the way to use a GPU."""

from __future__ import annotations

import numpy as np
import torch

from custom.images.frame import crop_box
from custom.inference.backend import CROP_SIZE, Decoded
from custom.networks import FrozenCLIP, MCPMedSAM
from custom.networks.clip import CLIP_CROP_SIZE


class TorchBackend:
    """A ``Backend`` over a network on whatever device it is.

    Args:
        network: the network, in evaluation mode.
        clip: the frozen CLIP for the sparse content prompt, where the network uses it.
        bfloat16: compute in bfloat16 where autocast allows it.
    """

    crop_size = CROP_SIZE

    def __init__(self, network: MCPMedSAM, clip: FrozenCLIP | None = None, *, bfloat16: bool = False) -> None:
        self.network, self.clip, self.bfloat16 = network, clip, bfloat16

    @property
    def uses_modality(self) -> bool:
        """Whether the network takes a modality and tells one."""
        return self.network.components.clip_text or self.network.components.modality_embedding

    @torch.inference_mode()
    def encode(self, images: np.ndarray) -> list[torch.Tensor]:
        """Encode Bx3x256x256; each embedding is 1x256x64x64 on the network's device."""
        with self._precision():
            return list(self.network.encode_image(self._tensor(images)).split(1))

    @torch.inference_mode()
    def clip_features(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray | None:
        """Return CLIP's feature of each box, NxF; None where the network does not use it."""
        if self.clip is None or not self.network.components.clip_image:
            return None
        crops = np.stack([crop_box(image, box, CLIP_CROP_SIZE) for box in boxes])
        return self.clip.to(self._device).encode_image(self._tensor(crops)).float().cpu().numpy()

    @torch.inference_mode()
    def decode(
        self,
        embedding: torch.Tensor,
        boxes: np.ndarray,
        modality: int,
        crops: np.ndarray,
        image_features: np.ndarray | None = None,
    ) -> Decoded:
        """Decode N boxes of one image, see ``Backend``."""
        feature = None if image_features is None else self._tensor(image_features).unsqueeze(0)  # NxF -> 1xNxF
        with self._precision():
            output = self.network.decode(
                embedding,
                self._tensor(boxes).unsqueeze(0),  # Nx4 -> 1xNx4
                torch.tensor([modality], device=self._device),
                self._tensor(crops).unsqueeze(0),  # Nx3xSxS -> 1xNx3xSxS
                feature,
            )
        masks, iou = output.mask_logits[0].float().cpu().numpy(), output.iou[0].float().cpu().numpy()
        logits = output.modality_logits
        return Decoded(masks, iou, None if logits is None else logits.float().cpu().numpy())

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(self._device)

    def _precision(self) -> torch.autocast:
        """Autocast to bfloat16 where wanted; otherwise whatever surrounds the call stays as it is."""
        kind = self._device.type
        outer = torch.is_autocast_enabled(kind)
        dtype = torch.bfloat16 if self.bfloat16 else torch.get_autocast_dtype(kind)
        return torch.autocast(kind, dtype, enabled=self.bfloat16 or outer)
