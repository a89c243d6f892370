"""Convert PyTorch graphs to OpenVINO and to ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import openvino
import torch
from torch import nn
from torch.export import Dim, ExportedProgram, export

from custom.clicks import VIEW_SIZE
from custom.export.folder import GRAPHS
from custom.export.mask_decoder import DecoderGraph
from custom.export.prompt_encoder import ContentGraph
from custom.export.tiny_vit import EncoderGraph
from custom.images.frame import IMAGE_SIZE
from custom.networks import MCPMedSAM
from custom.networks.embedding import EMBEDDING_SIZE, EMBEDDING_WIDTH
from custom.networks.encoders.tiny_vit import TinyViT

#: Version of the ONNX operators; 20 is the first with GELU.
ONNX_OPSET = 20
_EXAMPLES = (2, 3)  # objects and clicks; torch.export treats a size of one as a constant
_MAP = [EMBEDDING_WIDTH, EMBEDDING_SIZE, EMBEDDING_SIZE]
_MASKS, _BOXES = [-1, IMAGE_SIZE, IMAGE_SIZE], [-1, 4]
_CLICKS = {"points": [-1, -1, 2], "point_labels": [-1, -1]}
_INTEGERS = ("modality", "point_labels")
Shapes = dict[str, list[int]]


class Graph(NamedTuple):
    """One of the graphs: the program and the shapes of its inputs and outputs by name, -1 if free.

    The first free size is the number of objects, the second one the number of clicks. Inputs are in the order of the
    module's arguments.
    """

    program: ExportedProgram
    inputs: Shapes
    outputs: Shapes


def graph_names(network: MCPMedSAM) -> list[str]:
    """Return which of ``GRAPHS`` a network has."""
    used = {"content": network.components.content_cnn, "correction": network.mask_correction.on}
    used["click_decoder"] = network.takes_clicks
    return [name for name in GRAPHS if used.get(name, True)]


@torch.no_grad()
def trace(network: MCPMedSAM, name: str) -> Graph:
    """Trace one of the network's graphs; the inputs of the decoders are described at ``DecoderGraph``."""
    crops = [-1, 3, network.crop_size, network.crop_size]
    if name == "encoder":
        inputs, outputs = {"image": [-1, 3, IMAGE_SIZE, IMAGE_SIZE]}, {"embedding": [-1, *_MAP]}
        encoder = network.image_encoder
        return traced(EncoderGraph(encoder) if isinstance(encoder, TinyViT) else encoder, inputs, outputs)
    if name == "content":
        return traced(ContentGraph(network.prompt_encoder), {"crops": crops}, {"content": [-1, *_MAP]})
    if name in ("decoder", "click_decoder"):
        boxless = name == "click_decoder"
        return traced(DecoderGraph(network, boxless=boxless), *_decoder_shapes(network, crops, boxless))
    views = {"views": [-1, 3, VIEW_SIZE, VIEW_SIZE], "view_boxes": _BOXES}
    inputs = {"mask_logits": _MASKS} | views | _CLICKS | {"masks": _MASKS}
    # An output must not have the name of an input.
    return traced(network.mask_correction, inputs, {"corrected_logits": _MASKS, "iou_change": [-1]})


def _decoder_shapes(network: MCPMedSAM, crops: list[int], boxless: bool) -> tuple[Shapes, Shapes]:
    components, encoder = network.components, network.prompt_encoder
    inputs = {"embedding": [1, *_MAP], "boxes": _BOXES, "modality": [1]}
    if components.content_cnn:
        inputs["content"] = [-1, *_MAP]
    if network.mask_refinement.on:
        inputs["crops"] = crops
        if boxless:
            inputs["crop_boxes"] = _BOXES
    if components.clip_image:
        inputs["image_features"] = [-1, encoder.text_table.shape[1]]
    if boxless or encoder.click_tokens:
        inputs |= _CLICKS
    if encoder.click_tokens:
        inputs["masks"] = _MASKS
    outputs = {"mask_logits": _MASKS, "iou": [-1]}
    if components.modality_prompt:
        outputs["modality_logits"] = [-1, encoder.modality_embed.num_embeddings]
    return inputs, outputs


def traced(module: nn.Module, inputs: Shapes, outputs: Shapes) -> Graph:
    """Trace a module with these inputs, in the order of its arguments."""
    sizes = [Dim(name, min=1) for name in ("objects", "clicks")]
    examples, free = {}, {}
    for name, shape in inputs.items():
        size = [_EXAMPLES[i] if n == -1 else n for i, n in enumerate(shape)]
        examples[name] = torch.zeros(size, dtype=torch.int64 if name in _INTEGERS else torch.float32)
        free[name] = {i: sizes[i] for i, n in enumerate(shape) if n == -1}
    # Strict: len() of a tensor stays a free size.
    return Graph(export(module.eval(), (), examples, dynamic_shapes=free, strict=True), inputs, outputs)


def to_openvino(graph: Graph) -> openvino.Model:
    """Convert a graph to OpenVINO, with constants folded and weights in float32."""
    model = openvino.convert_model(graph.program)
    model.reshape({name: openvino.PartialShape(shape) for name, shape in graph.inputs.items()})
    for port, name in zip(model.outputs, graph.outputs, strict=True):
        port.get_tensor().set_names({name})
    return model


def write_onnx(graph: Graph, path: Path) -> None:
    """Write a graph as one ONNX file, weights in float32."""
    torch.onnx.export(
        graph.program,
        f=str(path),
        input_names=list(graph.inputs),
        output_names=list(graph.outputs),
        opset_version=ONNX_OPSET,
        external_data=False,
        verbose=False,
    )
