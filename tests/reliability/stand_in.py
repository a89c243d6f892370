"""A network without cost, for tests of everything around it."""

from __future__ import annotations

import numpy as np

from custom.images.frame import IMAGE_SIZE
from custom.inference.backend import Decoded
from custom.inference.models import Model
from custom.modalities import MODALITIES
from custom.prompts import Prompts

_Y, _X = np.mgrid[:IMAGE_SIZE, :IMAGE_SIZE]


class StandIn:
    """A ``Backend`` whose mask is whatever is brighter, inside the box, than the middle of the frame's range.

    The embedding is the frame's image. Logits, IoU and modality follow from image, box and prompt, so that a wrong one
    of them changes the result; nothing is stored between calls.
    """

    uses_modality, clip_image, crop_size = True, False, 64
    takes_clicks = click_tokens = False

    def encode(self, images: np.ndarray) -> list[np.ndarray]:
        """Return the images one by one."""
        return list(images)

    def clip_features(self, image: np.ndarray, boxes: np.ndarray) -> None:
        """Return None: there is no CLIP."""

    def encode_content(self, crops: np.ndarray) -> None:
        """Return None: there is no content CNN."""

    def decode(self, embedding: np.ndarray, prompts: Prompts, answer: Decoded | None = None) -> Decoded:
        """Decode N boxes of one image; see ``Backend``."""
        boxes = prompts.boxes
        masks = np.empty((len(boxes), IMAGE_SIZE, IMAGE_SIZE), np.float32)
        for mask, (x_min, y_min, x_max, y_max) in zip(masks, boxes - [0.5, 0.5, -0.5, -0.5], strict=True):
            inside = (_X >= x_min) & (_X <= x_max) & (_Y >= y_min) & (_Y <= y_max)
            mask[:] = np.where(inside, embedding[0] - 0.5 + 0.01 * prompts.modality, -1)
        reported = np.zeros((len(boxes), len(MODALITIES)), np.float32)
        reported[np.arange(len(boxes)), boxes.sum(axis=1).astype(int) % len(MODALITIES)] = 3
        return Decoded(masks, prompts.crops.mean(axis=(1, 2, 3)), reported)


def stand_in_model() -> Model:
    """Return the stand-in as the model of a run."""
    return Model(facts={"backend": "stand-in", "precision": "f32", "checkpoint": "none", "digest": "0"}, make=StandIn)
