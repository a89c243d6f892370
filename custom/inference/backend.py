"""What runs the network for a pipeline: NumPy in, NumPy out, whichever library computes."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

#: Side of the crops that a content CNN takes.
CROP_SIZE = 64


class Decoded(NamedTuple):
    """What the network says about N boxes of one image.

    Attributes:
        mask_logits: Nx256x256 float32, in the network's frame (or resized, NxHxW).
        iou: predicted IoU of each mask, N.
        modality_logits: NxM, or None without a modality prompt.
    """

    mask_logits: np.ndarray
    iou: np.ndarray
    modality_logits: np.ndarray | None


class Backend(Protocol):
    """Encoder and decoder of a network.

    Attributes:
        uses_modality: the network takes a modality and tells one.
        crop_size: side S of the crops ``decode`` takes.
    """

    uses_modality: bool
    crop_size: int

    def encode(self, images: np.ndarray) -> list[Any]:
        """Encode Bx3x256x256 float32 in [0, 1]; returns B embeddings, which only this backend understands."""

    def clip_features(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray | None:
        """Return CLIP's feature of each box of a native image (3xHxW uint8, boxes Nx4), NxF; None where unused."""

    def decode(
        self,
        embedding: Any,
        boxes: np.ndarray,
        modality: int,
        crops: np.ndarray,
        image_features: np.ndarray | None = None,
    ) -> Decoded:
        """Decode boxes of one image.

        Args:
            embedding: one of those ``encode`` gave.
            boxes: Nx4 float32, x_min y_min x_max y_max in pixels of the 256 frame.
            modality: index into ``MODALITIES``, negative for unknown.
            crops: native image in each box, Nx3xSxS float32 in [0, 1].
            image_features: what ``clip_features`` gave.
        """
