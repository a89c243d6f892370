"""Predictions of a validation as pictures in TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.handlers import TensorBoardHandler

from custom.images.frame import Frame
from custom.inference.overlay import draw_overlay
from custom.transforms.masks import masks_to_frame


class PredictionImages(TensorBoardHandler):
    """Write one picture per modality at every validation: the predicted masks beside the true ones.

    The pictures are of the first slice of each modality, which is the same in every validation. Arguments as in
    MONAI's ``TensorBoardHandler``.
    """

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator whose outputs have a "result", see ``custom.transforms.RestoreMasksd``."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration_completed)

    def _started(self, _: Engine) -> None:
        self._drawn: set[str] = set()

    def _iteration_completed(self, engine: Engine) -> None:
        for batch, output in zip(engine.state.batch, engine.state.output, strict=True):
            modality = output["result"]["modality"]
            if modality not in self._drawn:
                self._drawn.add(modality)
                picture = prediction_picture(output, batch["boxes"])
                self._writer.add_image(f"prediction/{modality}", picture, engine.state.epoch, dataformats="HWC")


def prediction_picture(output: Mapping[str, Any], boxes: torch.Tensor) -> np.ndarray:
    """Draw one validated slice in the network's frame, the prediction on the left, the truth on the right.

    Args:
        output: "image" 3x256x256 in [0, 1], "pred" logits Nx256x256, and "result" with "label" NxHxW.
        boxes: the boxes of the prompt, Nx4 in the frame.

    Returns:
        256x512x3 uint8.
    """
    image = (output["image"].float().cpu().numpy() * 255).round().astype(np.uint8).transpose(1, 2, 0)  # CxHxW -> HxWxC
    label = output["result"]["label"]
    truth = masks_to_frame(label.to(torch.uint8), Frame(*label.shape[1:])) > 0
    sides = []
    for masks in (output["pred"].float().cpu() > 0, truth):
        labels = np.zeros(image.shape[:2], np.int32)
        for k, mask in enumerate(masks.numpy(), start=1):
            labels[mask] = k
        sides.append(draw_overlay(image, labels, boxes.float().cpu().numpy()))
    return np.concatenate(sides, axis=1)
