"""Quantise the exported graphs to 8-bit integers after training, with NNCF (https://github.com/openvinotoolkit/nncf)."""

from __future__ import annotations

from collections.abc import Mapping

import nncf
import numpy as np
import openvino
from monai.transforms import Compose
from openvino.properties import hint

from custom.data.datasets import MaskDataset
from custom.data.prepared import load_dataset
from custom.data.sampler import ModalityBalancedSampler
from custom.networks import MCPMedSAM
from custom.networks.tiny_vit import EMBEDDING_SIZE
from custom.transforms import CropBoxesd, LoadSliced, PickMasksd, RandBoxd, ToFramed

#: Boxes that show the quantisation typical values, drawn evenly over the modalities.
CALIBRATION_BOXES = 100
Values = dict[str, np.ndarray]


def calibration_values(dataset_dir: str, count: int = CALIBRATION_BOXES) -> list[Values]:
    """Draw boxes from the training part of a prepared set: the graphs' inputs but the embedding and CLIP's.

    Raises:
        InputError: not a prepared set.
    """
    transform = Compose(
        [
            LoadSliced(["image", "label"]),
            PickMasksd("label"),
            RandBoxd("label"),
            CropBoxesd("image", crops={"crop": EMBEDDING_SIZE}),
            ToFramed("image"),
        ]
    )
    masks = MaskDataset(load_dataset(dataset_dir).training, transform)
    items = (masks[draw] for draw in ModalityBalancedSampler(masks.table, length=count))
    return [
        {
            "image": item["image"].numpy()[None],  # 3x256x256 -> 1x3x256x256
            "boxes": item["boxes"].numpy().astype(np.float32),
            "modality": np.array([item["modality_index"]]),
            "crops": item["crop"].numpy(),
        }
        for item in items
    ]
