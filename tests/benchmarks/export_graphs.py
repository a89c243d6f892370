"""Milliseconds of the exported graphs beside the plain conversion of the same modules, for one object.

python -m tests.benchmarks.export_graphs --checkpoint bundle/models/model.pt

All take turns in one process, and the figures are minima. The difference is the root mean square of that from PyTorch
in float32; of masks also their Dice similarity.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import fire
import numpy as np
import openvino
import torch
from openvino import properties
from openvino.properties import hint
from scipy import ndimage
from torch import nn

from custom.export.__main__ import load
from custom.export.conversion import Graph, graph_names, to_openvino, trace, traced
from custom.images.frame import IMAGE_SIZE
from custom.networks import MCPMedSAM
from custom.networks.embedding import EMBEDDING_SIZE
from custom.prompts import Prompts

_PRECISIONS = {"f32": openvino.Type.f32, "bf16": openvino.Type.bf16}


class PlainDecoder(nn.Module):
    """Prompt encoder, mask decoder and refinement as they are, with the arguments of ``DecoderGraph``."""

    def __init__(self, network: MCPMedSAM) -> None:
        super().__init__()
        self.encoder, self.decoder = network.prompt_encoder, network.mask_decoder
        self.refinement = network.mask_refinement if network.mask_refinement.on else None

    def forward(
        self,
        embedding: torch.Tensor,
        boxes: torch.Tensor,
        modality: torch.Tensor,
        content: torch.Tensor | None = None,
        crops: torch.Tensor | None = None,
        crop_boxes: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
        points: torch.Tensor | None = None,
        point_labels: torch.Tensor | None = None,
        masks: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Decode N objects of one image."""
        n = boxes.shape[0]
        prompts = self.encoder(
            Prompts(
                boxes=boxes,
                points=points,
                point_labels=point_labels,
                masks=masks,
                content=content,
                modality=modality.expand(n),
                image_features=image_features,
            )
        )
        grid = self.encoder.position.grid(EMBEDDING_SIZE)
        logits, iou, modality_logits = self.decoder(embedding.expand(n, -1, -1, -1), grid, prompts)
        if self.refinement is not None:
            logits = self.refinement(logits, crops, boxes if crop_boxes is None else crop_boxes)
        return (logits, iou) if modality_logits is None else (logits, iou, modality_logits)


def benchmark(*, checkpoint: str, threads: int = 2, repetitions: int = 20, clicks: bool = False) -> None:
    """Print the table.

    Args:
        checkpoint: weights.
        threads: of OpenVINO.
        repetitions: each figure is the minimum of this number of runs.
        clicks: measure also what clicks need, untrained if the weights have none.
    """
    network, _ = load(Path(checkpoint))
    network.mask_correction.on = network.mask_correction.on or clicks
    modules = {"encoder": network.image_encoder, "decoder": PlainDecoder(network)}
    values, runs = _shared_values(), {}
    for name in graph_names(network):
        graph = trace(network, name)
        kinds = {"exported": graph}
        if name in modules:
            kinds["plain"] = traced(modules[name], graph.inputs, graph.outputs)
        given = {key: values[key] if key in values else _smooth(shape) for key, shape in graph.inputs.items()}
        with torch.no_grad():
            results = graph.program.module()(**{key: torch.tensor(value) for key, value in given.items()})
        expected = (results[0] if isinstance(results, tuple) else results).numpy()
        values[next(iter(graph.outputs))] = expected
        for kind, each in kinds.items():
            model = to_openvino(each)
            for precision in _PRECISIONS:
                runs[name, precision, kind] = _compiled(model, graph, precision, threads), given, expected
        print(f"{name} compiled", file=sys.stderr, flush=True)
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(repetitions + 1):  # the first run is slower
        for key, (request, given, _) in runs.items():
            start = time.perf_counter()
            request.infer(given)
            best[key] = min(best[key], time.perf_counter() - start)
    for key, (request, _, expected) in runs.items():
        error = request.get_output_tensor(0).data - expected
        row = [f"{best[key] * 1000:8.1f} ms", f"difference {np.sqrt((error**2).mean()):.5f} of {expected.std():.3f}"]
        if expected.shape[-1] == IMAGE_SIZE:
            found, mask = error + expected > 0, expected > 0
            row.append(f"Dice {2 * (found & mask).sum() / max(found.sum() + mask.sum(), 1):.4f}")
        print(f"{key[0]:10} {key[1]:4} {key[2]:8}", *row)


def _compiled(model: openvino.Model, graph: Graph, precision: str, threads: int) -> openvino.InferRequest:
    model = model.clone()
    model.reshape({name: [abs(n) for n in shape] for name, shape in graph.inputs.items()})
    config = {
        hint.performance_mode: hint.PerformanceMode.LATENCY,
        hint.inference_precision: _PRECISIONS[precision],
        properties.inference_num_threads: threads,
    }
    return openvino.Core().compile_model(model, "CPU", config).create_infer_request()


def _shared_values() -> dict[str, np.ndarray]:
    """Return inputs that are not images: one object with a click."""
    box = np.array([[60, 70, 170, 200]], np.float32)
    values = {"boxes": box, "crop_boxes": box, "view_boxes": box + np.array([-20, -20, 20, 20], np.float32)}
    values |= {"points": np.array([[[110, 130]]], np.float32), "point_labels": np.ones((1, 1), np.int64)}
    return values | {"modality": np.array([4]), "masks": np.zeros((1, IMAGE_SIZE, IMAGE_SIZE), np.float32)}


def _smooth(shape: list[int]) -> np.ndarray:
    """Return a smooth image in [0, 1] of a shape, one for each free size."""
    values = np.random.default_rng(0).random([abs(n) for n in shape])
    values = ndimage.gaussian_filter(values, [0] * (len(shape) - 2) + [3, 3])
    return ((values - values.min()) / np.ptp(values)).astype(np.float32)


if __name__ == "__main__":
    fire.Fire(benchmark)
