"""Quantise content CNN and decoder to 8-bit integers after training, with NNCF (github.com/openvinotoolkit/nncf).

Their wide convolutions (content CNN and the residual blocks of the branches) are quantised: nearly all of a box's
arithmetic, and tolerant. Everything else is unchanged: the narrow convolutions of the mask refinement, which draw the
outline; the sums, norms and products around the few tokens, which locate the mask and take little time (with
them in 8 bits the mean DSC fell by nine points); and the encoder: quantised, it was hardly faster than in bfloat16
(its time goes into moving data), and masks agreed with those of float32 to 91% instead of 99%.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import nncf
import numpy as np
import openvino
from monai.transforms import Compose
from openvino.properties import hint

from custom.data.datasets import MaskDataset
from custom.data.prepared import load_dataset
from custom.data.sampler import ModalityBalancedSampler
from custom.errors import InputError
from custom.images.frame import IMAGE_SIZE
from custom.networks.embedding import EMBEDDING_WIDTH
from custom.prompts import NO_POINT
from custom.transforms import CropBoxesd, LoadSliced, PickMasksd, RandBoxd, ToFramed

#: Number of boxes that give the quantisation typical values, drawn evenly over the modalities.
CALIBRATION_BOXES = 44
Values = dict[str, np.ndarray]
_NO_CLICKS = {
    "points": np.zeros((1, 1, 2), np.float32),
    "point_labels": np.full((1, 1), NO_POINT, np.int64),
    "masks": np.zeros((1, IMAGE_SIZE, IMAGE_SIZE), np.float32),
}


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


#: The graphs with convolutions as wide as the embedding.
WIDE = ("content", "decoder", "click_decoder")


def quantise(
    models: Mapping[str, openvino.Model], values: Sequence[Values], clip_width: int
) -> dict[str, openvino.Model]:
    """Return the graphs of content CNN and decoders with their wide convolutions in 8-bit integers.

    Args:
        models: the network's graphs in float32, as ``to_openvino`` returns them.
        values: typical inputs, as ``calibration_values`` returns them.
        clip_width: width of CLIP's image features. They are zeros, as when an exported network runs.

    Raises:
        InputError: no graph has such a convolution.
    """
    core, precision = openvino.Core(), {hint.inference_precision: openvino.Type.f32}
    examples = [value | {"crop_boxes": value["boxes"]} | _NO_CLICKS for value in values]
    for example in examples:
        example["image_features"] = np.zeros((1, clip_width), np.float32)
    for name, inputs in (("encoder", "image"), ("content", "crops")):
        if name in models:
            compute = core.compile_model(models[name], "CPU", precision)
            for example in examples:
                result = compute({inputs: example[inputs]})
                example |= {port.get_any_name(): result[port] for port in compute.outputs}
    quantised = {name: _quantised(models[name], examples) for name in WIDE if name in models}
    quantised = {name: model for name, model in quantised.items() if model is not None}
    if not quantised:
        raise InputError("arguments", "precision", "'int8' for a network without prompt components", "f32, bf16")
    return quantised


def _quantised(model: openvino.Model, examples: Sequence[Values]) -> openvino.Model | None:
    """Quantise the convolutions between maps of the embedding's width; None if there is none."""
    convolutions = [operation for operation in model.get_ops() if operation.get_type_name() == "Convolution"]
    narrow = [conv.get_friendly_name() for conv in convolutions if not _is_wide(conv)]
    if len(narrow) == len(convolutions):
        return None
    # An input can have a second name, a number, from the first operation on it.
    names = [name for port in model.inputs for name in port.get_names() if name in examples[0]]
    given = [{name: example[name] for name in names} for example in examples]
    nncf.set_log_level(logging.WARNING)
    others = {operation.get_type_name() for operation in model.get_ops()} - {"Convolution", "Constant"}
    kept = nncf.IgnoredScope(types=sorted(others), names=narrow, validate=False)
    return nncf.quantize(model, nncf.Dataset(given), subset_size=len(given), ignored_scope=kept)


def _is_wide(convolution: openvino.Node) -> bool:
    inputs, outputs = convolution.get_input_partial_shape(0)[1], convolution.get_output_partial_shape(0)[1]
    return inputs.get_length() >= EMBEDDING_WIDTH and outputs.get_length() == EMBEDDING_WIDTH
