"""The interface of what runs the network: NumPy in, NumPy out, so that the pipeline around it needs no PyTorch."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np


class Decoded(NamedTuple):
    """Result for N boxes: mask_logits Nx256x256, iou N, modality_logits NxM or None without a modality prompt.

    All float32.
    """

    mask_logits: np.ndarray
    iou: np.ndarray
    modality_logits: np.ndarray | None


class Backend(Protocol):
    """Runs image encoder and decoder.

    Attributes:
        uses_modality: whether the network takes a modality prompt, and so predicts a modality.
        clip_image: whether the network takes the CLIP feature of each crop.
        crop_size: side of the crops in pixels.
    """

    uses_modality: bool
    clip_image: bool
    crop_size: int

    def encode(self, images: np.ndarray) -> list[object]:
        """Encode images in the frame, Bx3x256x256 float32 in [0, 1]; one embedding per image, for ``decode``."""
        ...

    def clip_features(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray | None:
        """Return CLIP's feature of the image inside each box, NxF; None if the network or this backend has no CLIP.

        Args:
            image: native image, CxHxW uint8.
            boxes: Nx4 in native pixels.
        """
        ...

    def decode(
        self,
        embedding: object,
        boxes: np.ndarray,
        modality: int,
        crops: np.ndarray,
        image_features: np.ndarray | None = None,
    ) -> Decoded:
        """Decode N boxes of one image.

        Args:
            embedding: an embedding returned by ``encode``.
            boxes: Nx4 float32 in pixels of the 256 frame.
            modality: index into ``custom.modalities.MODALITIES``, negative for unknown.
            crops: native image inside each box, Nx3xSxS float32 in [0, 1].
            image_features: CLIP's features, NxF float32; None means zeros.
        """
        ...
