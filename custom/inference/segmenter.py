"""Segment what is inside boxes, on a picture or through a volume."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from monai.inferers import Inferer

from custom.errors import InputError
from custom.modalities import modality_index
from custom.networks import FrozenCLIP, MCPMedSAM
from custom.networks.clip import CLIP_CROP_SIZE
from custom.networks.tiny_vit import EMBEDDING_SIZE
from custom.transforms import Frame, crop_box, tight_boxes

#: A mask's box grows by so many pixels of the 256 frame before it prompts the next slice.
NEXT_SLICE_MARGIN = 5


class EmbeddedSlice(NamedTuple):
    """A native image 3xHxW uint8, its frame, and its embedding 1x256x64x64."""

    image: torch.Tensor
    frame: Frame
    embedding: torch.Tensor


class Segmentation(NamedTuple):
    """Result for N boxes.

    Attributes:
        labels: value k where box k (from 1) has its mask, the image's size; where masks overlap, the larger logit wins.
        iou: predicted IoU of each box, N; for a volume the mean over its slices.
        modality: probability of each modality, NxM, or None without a modality prompt.
    """

    labels: np.ndarray
    iou: np.ndarray
    modality: np.ndarray | None


class LabelCanvas:
    """A label map that keeps, where masks overlap, the one with the larger logit."""

    def __init__(self, shape: tuple[int, ...], boxes: int) -> None:
        self.labels = np.zeros(shape, np.uint8 if boxes <= 255 else np.uint16)
        self._best = np.zeros(shape, np.float32)  # a mask is where the logit is above 0

    def paint(self, value: int, logits: np.ndarray, z: int | None = None) -> None:
        """Paint one mask, given as logits HxW, onto the picture or onto slice z."""
        labels, best = (self.labels, self._best) if z is None else (self.labels[z], self._best[z])
        wins = logits > best
        labels[wins], best[wins] = value, logits[wins]


class BoxSegmenter(Inferer):
    """Encode each image once and decode its boxes, a few at a time.

    Args:
        clip: the frozen CLIP for the sparse content prompt, where the network uses it.
        boxes_at_once: boxes decoded together.
    """

    def __init__(self, *, clip: FrozenCLIP | None = None, boxes_at_once: int = 8) -> None:
        super().__init__()
        self.clip, self.boxes_at_once = clip, boxes_at_once

    def __call__(
        self,
        inputs: torch.Tensor,
        network: MCPMedSAM,
        boxes: torch.Tensor,
        modality: list[str] | None = None,
    ) -> torch.Tensor:
        """Segment a batch of one case, as MONAI's engines call it: 1xHxW[x3] or 1xDxHxW -> label map of its size.

        ``modality`` holds one name, empty for unknown.
        """
        segment = self.segment_volume if boxes.shape[-1] == 6 else self.segment_picture
        case = inputs[0].cpu().numpy()
        result = segment(network, case, boxes[0].cpu().numpy(), (modality[0] or None) if modality else None)
        return torch.from_numpy(result.labels.astype(np.int32)).unsqueeze(0)

    @torch.inference_mode()
    def segment_picture(
        self, network: MCPMedSAM, image: np.ndarray, boxes: np.ndarray, modality: str | None = None
    ) -> Segmentation:
        """Segment a picture.

        Args:
            network: the network, in evaluation mode.
            image: HxW or HxWx3 uint8.
            boxes: Nx4 x_min y_min x_max y_max, native pixels, checked by ``check_boxes``.
            modality: name, or None for unknown.
        """
        canvas, ious, modalities = LabelCanvas(image.shape[:2], len(boxes)), [], []
        embedded = self.embed(network, image)
        for start in range(0, len(boxes), self.boxes_at_once):
            part = torch.as_tensor(boxes[start : start + self.boxes_at_once], dtype=torch.float32)
            logits, iou, modality_logits = self.decode(network, embedded, part, modality)
            for i, mask_logits in enumerate(logits.numpy()):
                canvas.paint(start + i + 1, mask_logits)
            ious.append(iou)
            modalities.append(modality_logits)
        return Segmentation(canvas.labels, torch.cat(ious).numpy(), _probabilities(modalities))

    @torch.inference_mode()
    def segment_volume(
        self, network: MCPMedSAM, volume: np.ndarray, boxes: np.ndarray, modality: str | None = None
    ) -> Segmentation:
        """Segment a volume slice by slice, from the middle of each box outwards to its first and last slice.

        The middle slice is prompted with the box itself, each next slice with the box of the mask before it (a little
        enlarged, inside the given box); after an empty mask, or one outside the given box, the last box is kept. Each
        slice is encoded once for all boxes.

        Args:
            network: the network, in evaluation mode.
            volume: DxHxW uint8.
            boxes: Nx6 x_min y_min z_min x_max y_max z_max, native voxels, checked by ``check_boxes``.
            modality: name, or None for unknown.
        """
        canvas, ious, modalities = LabelCanvas(volume.shape, len(boxes)), [], []
        embedded: dict[int, EmbeddedSlice] = {}

        def decode(z: int, box: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
            if z not in embedded:
                embedded[z] = self.embed(network, volume[z])
            return self.decode(network, embedded[z], box, modality)

        for k, box in enumerate(torch.as_tensor(boxes, dtype=torch.float32), start=1):
            iou, modality_logits = self._follow(decode, box, lambda z, mask, k=k: canvas.paint(k, mask.numpy(), z))
            ious.append(iou)
            modalities.append(modality_logits)
        return Segmentation(canvas.labels, torch.stack(ious).numpy(), _probabilities(modalities))

    @staticmethod
    def _follow(
        decode: Callable, box: torch.Tensor, paint: Callable[[int, torch.Tensor], None]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Follow one object through its slices; returns its mean IoU and mean modality logits (1xM)."""
        first, last = round(box[2].item()), round(box[5].item())
        given = box[[0, 1, 3, 4]].unsqueeze(0)  # 1x4
        middle, results = (first + last) // 2, []
        start = given
        for slices in (range(middle, last + 1), range(middle - 1, first - 1, -1)):
            current = start
            for z in slices:
                logits, iou, modality_logits = decode(z, current)
                paint(z, logits[0])
                results.append((iou[0], modality_logits))
                mask = (logits > 0).to(torch.uint8)
                if mask.any():
                    margin = NEXT_SLICE_MARGIN / Frame(*mask.shape[1:]).scale
                    grown = tight_boxes(mask) + margin * torch.tensor([-1.0, -1.0, 1.0, 1.0])
                    low, high = grown[:, :2].maximum(given[:, :2]), grown[:, 2:].minimum(given[:, 2:])
                    if (low < high).all():  # a mask outside the given box leaves no box to prompt with
                        current = torch.cat([low, high], dim=1)
                if z == middle:
                    start = current
        logits = [m for _, m in results if m is not None]
        return torch.stack([i for i, _ in results]).mean(), torch.stack(logits).mean(dim=0) if logits else None

    def embed(self, network: MCPMedSAM, image: np.ndarray) -> EmbeddedSlice:
        """Encode one picture or slice: HxW or HxWx3 uint8."""
        tensor = torch.from_numpy(np.ascontiguousarray(image))
        tensor = tensor.expand(3, -1, -1) if tensor.ndim == 2 else tensor.permute(2, 0, 1)  # -> 3xHxW
        frame = Frame(*tensor.shape[1:])
        device = next(network.parameters()).device
        return EmbeddedSlice(tensor, frame, network.encode_image(frame.image_to_frame(tensor).unsqueeze(0).to(device)))

    def decode(
        self, network: MCPMedSAM, embedded: EmbeddedSlice, boxes: torch.Tensor, modality: str | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Decode N boxes of one slice: native logits NxHxW, IoU N, modality logits NxM, on the CPU."""
        device = embedded.embedding.device
        crops = torch.stack([crop_box(embedded.image, box, EMBEDDING_SIZE) for box in boxes]).to(device)
        feature = None
        if network.components.clip_image and self.clip is not None:
            clip_crops = torch.stack([crop_box(embedded.image, box, CLIP_CROP_SIZE) for box in boxes])
            feature = self.clip.to(device).encode_image(clip_crops).unsqueeze(0)  # NxF -> 1xNxF
        output = network.decode(
            embedded.embedding,
            embedded.frame.boxes_to_frame(boxes).unsqueeze(0).to(device),  # Nx4 -> 1xNx4
            torch.tensor([modality_index(modality)], device=device),
            crops.unsqueeze(0),  # Nx3xSxS -> 1xNx3xSxS
            feature,
        )
        logits = embedded.frame.logits_to_native(output.mask_logits[0].float().cpu())
        modality_logits = None if output.modality_logits is None else output.modality_logits.float().cpu()
        return logits, output.iou[0].float().cpu(), modality_logits


def _probabilities(logits: list[torch.Tensor | None]) -> np.ndarray | None:
    return None if logits[0] is None else torch.cat(logits).softmax(dim=1).numpy()


def as_uint8(image: np.ndarray, source: str) -> np.ndarray:
    """Return an image of grey values 0..255 as uint8.

    Raises:
        InputError: values outside 0..255 or not finite, or no pixels.
    """
    if image.size == 0:
        raise InputError(source, "image", f"shape {image.shape}", "at least one pixel")
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind not in "iuf":
        raise InputError(source, "image", f"{image.dtype} values", "grey values 0 to 255")
    low, high = image.min(), image.max()
    if not (low >= 0 and high <= 255):
        raise InputError(source, "image", f"{image.dtype} values {low} to {high}", "grey values 0 to 255")
    return np.rint(image).astype(np.uint8)
