"""Convert PyTorch graphs to OpenVINO and to ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import openvino
import torch
from torch.export import Dim, ExportedProgram, export

from custom.export.decoder_graph import DecoderGraph
from custom.export.encoder_graph import EncoderGraph
from custom.images.frame import IMAGE_SIZE
from custom.networks import MCPMedSAM
from custom.networks.tiny_vit import EMBEDDING_SIZE, EMBEDDING_WIDTH

#: Version of the ONNX operators; 20 is the first with GELU.
ONNX_OPSET = 20
_EXAMPLES = 2  # torch.export treats a size of one as a constant
Shapes = dict[str, list[int]]


class Graph(NamedTuple):
    """One of the two graphs: the program and the shapes of its inputs and outputs by name, -1 if free."""

    program: ExportedProgram
    inputs: Shapes
    outputs: Shapes


@torch.no_grad()
def encoder_graph(network: MCPMedSAM) -> Graph:
    """Return the image encoder: "image" in, "embedding" out."""
    inputs = {"image": [-1, 3, IMAGE_SIZE, IMAGE_SIZE]}
    outputs = {"embedding": [-1, EMBEDDING_WIDTH, EMBEDDING_SIZE, EMBEDDING_SIZE]}
    return Graph(_trace(EncoderGraph(network.image_encoder), inputs), inputs, outputs)


@torch.no_grad()
def decoder_graph(network: MCPMedSAM) -> Graph:
    """Return prompt encoder and mask decoder, inputs and outputs as in ``DecoderGraph``."""
    components, encoder = network.components, network.prompt_encoder
    inputs = {
        "embedding": [1, EMBEDDING_WIDTH, EMBEDDING_SIZE, EMBEDDING_SIZE],
        "boxes": [-1, 4],
        "modality": [1],
    }
    if network.takes_crops:
        inputs["crops"] = [-1, 3, network.crop_size, network.crop_size]
    if components.clip_image:
        inputs["image_features"] = [-1, encoder.text_table.shape[1]]
    outputs = {"mask_logits": [-1, IMAGE_SIZE, IMAGE_SIZE], "iou": [-1]}
    if components.modality_prompt:
        outputs["modality_logits"] = [-1, encoder.modality_embed.num_embeddings]
    return Graph(_trace(DecoderGraph(network), inputs), inputs, outputs)


def _trace(module: torch.nn.Module, inputs: Shapes) -> ExportedProgram:
    count = Dim("count", min=1)
    examples, free = {}, {}
    for name, shape in inputs.items():
        size = [_EXAMPLES if n == -1 else n for n in shape]
        examples[name] = torch.zeros(size, dtype=torch.int64) if name == "modality" else torch.zeros(size)
        free[name] = {0: count} if shape[0] == -1 else None
    return export(module.eval(), (), examples, dynamic_shapes=free)


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
