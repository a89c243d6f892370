"""Quantise the decoder graph to 8-bit integers after training, with NNCF (github.com/openvinotoolkit/nncf).

Its wide convolutions (content CNN and the residual blocks of the branches) are quantised: nearly all of a box's
arithmetic, and tolerant. Everything else is unchanged: the narrow convolutions of the mask refinement, which draw the
outline; the sums, norms and products around the few tokens, which locate the mask and take little time (with
them in 8 bits the mean DSC fell by nine points); and the encoder: quantised, it was hardly faster than in bfloat16
(its time goes into moving data), and masks agreed with those of float32 to 91% instead of 99%.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import nncf
import numpy as np
import openvino
from monai.transforms import Compose
from openvino.properties import hint

from custom.data.datasets import MaskDataset
from custom.data.prepared import load_dataset
from custom.data.sampler import ModalityBalancedSampler
from custom.errors import InputError
from custom.networks.tiny_vit import EMBEDDING_WIDTH
from custom.transforms import CropBoxesd, LoadSliced, PickMasksd, RandBoxd, ToFramed

#: Number of boxes that give the quantisation typical values, drawn evenly over the modalities.
CALIBRATION_BOXES = 44
Values = dict[str, np.ndarray]


def calibration_values(dataset_dir: str, crop_size: int, count: int = CALIBRATION_BOXES) -> list[Values]:
    """Draw boxes from the training part of a prepared set, the same every time.

    Args:
        dataset_dir: the prepared set.
        crop_size: side S of the crops in pixels.
        count: number of boxes.

    Returns:
        for each box "image" 1x3x256x256 and "crops" 1x3xSxS in [0, 1], "boxes" 1x4 in the 256 frame, "modality" (1,).

    Raises:
        InputError: not a prepared set, or one without a mask to train with.
    """
    transform = Compose(
        [
            LoadSliced(["image", "label"]),
            PickMasksd("label"),
            RandBoxd("label"),
            CropBoxesd("image", crops={"crop": crop_size}),
            ToFramed("image"),
        ]
    )
    masks = MaskDataset(load_dataset(dataset_dir).training, transform)
    if not len(masks):
        raise InputError(dataset_dir, "training", "no mask", "cases with masks, to calibrate with")
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


def quantise_decoder(
    decoder: openvino.Model, encoder: openvino.Model, values: Sequence[Values], clip_width: int
) -> openvino.Model:
    """Return the decoder with its wide convolutions in 8-bit integers.

    Args:
        decoder: in float32, as ``to_openvino`` returns it.
        encoder: in float32; it computes the embeddings.
        values: typical inputs, as ``calibration_values`` returns them.
        clip_width: width of CLIP's image features. They are zeros, as when an exported network runs.

    Raises:
        InputError: the decoder has no such convolution.
    """
    convolutions = [operation for operation in decoder.get_ops() if operation.get_type_name() == "Convolution"]
    narrow = [n.get_friendly_name() for n in convolutions if n.get_output_partial_shape(0)[1] != EMBEDDING_WIDTH]
    if len(narrow) == len(convolutions):
        raise InputError("arguments", "precision", "'int8' for a network without prompt components", "f32, bf16")
    encode = openvino.Core().compile_model(encoder, "CPU", {hint.inference_precision: openvino.Type.f32})
    features = np.zeros((1, clip_width), np.float32)
    examples = []
    for value in values:
        given = value | {"embedding": encode({"image": value["image"]})["embedding"], "image_features": features}
        # An input can have a second name, a number, from the first operation on it.
        examples.append({name: given[name] for port in decoder.inputs for name in port.get_names() if name in given})
    nncf.set_log_level(logging.WARNING)
    others = {operation.get_type_name() for operation in decoder.get_ops()} - {"Convolution", "Constant"}
    kept = nncf.IgnoredScope(types=sorted(others), names=narrow, validate=False)
    return nncf.quantize(decoder, nncf.Dataset(examples), subset_size=len(examples), ignored_scope=kept)
