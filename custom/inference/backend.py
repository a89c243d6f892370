"""The interface of what runs the network: NumPy in, NumPy out, so that the pipeline around it needs no PyTorch."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from custom.prompts import Prompts


class Decoded(NamedTuple):
    """Result for N objects: mask_logits Nx256x256, iou N, modality_logits NxM or None without a modality prompt.

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
        takes_clicks: whether the weights were trained with clicks.
        click_tokens: whether clicks change the decoder's answer to a box; if not, they only correct its mask.
    """

    uses_modality: bool
    clip_image: bool
    crop_size: int
    takes_clicks: bool
    click_tokens: bool

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

    def encode_content(self, crops: np.ndarray) -> np.ndarray | None:
        """Return the dense content prompt of crops, Nx3xSxS -> NxCx64x64; None if the network has none."""
        ...

    def decode(self, embedding: object, prompts: Prompts, answer: Decoded | None = None) -> Decoded:
        """Decode N objects of one image.

        Args:
            embedding: an embedding returned by ``encode``.
            prompts: of N objects; float32 arrays, point labels int64, and as modality one index. Without
                ``click_tokens`` the decoder sees the box or, without one, the first click; the rest corrects its mask
                in the views. Without views nothing is corrected.
            answer: result for the same prompts without views. Without ``click_tokens``, the decoder does not run again.
        """
        ...
