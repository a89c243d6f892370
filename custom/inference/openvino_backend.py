"""Run an exported network with OpenVINO on the CPU; needs neither PyTorch nor MONAI."""

from __future__ import annotations

from functools import cache
from os import PathLike
from pathlib import Path

import numpy as np
import openvino
from openvino import properties
from openvino.properties import hint

from custom.errors import InputError
from custom.export.folder import read_description
from custom.inference.backend import Decoded

# Fixed sizes, since OpenVINO computes graphs of a free size up to twice as slowly (it then converts tensors between
# layouts). With the content CNN, several boxes at once are no faster than one by one.
_BOXES_AT_ONCE, _BOXES_AT_ONCE_WITH_CNN = (4, 1), (1,)


class OpenVINOBackend:
    """A ``Backend`` for a folder written by ``python -m custom.export``.

    Args:
        folder: the exported network.
        precision: "f32" or "bf16"; by default that of the export; an "int8" export has no other.
        cache_dir: folder for the compiled graphs, so that the next start is faster; by default "compiled" in the
            exported folder. OpenVINO checks whether they match graph, processor and version, and compiles if they
            cannot be read or written.
        threads: number of CPU threads; all cores by default.

    Attributes:
        precision: the precision in use: "bf16" becomes "f32" on a processor without bfloat16 instructions.

    Raises:
        InputError: not an exported network, or a precision it cannot run in.
    """

    ending = ".xml"  # of the graphs' files

    def __init__(
        self,
        folder: str | PathLike[str],
        *,
        precision: str | None = None,
        cache_dir: str | PathLike[str] | None = None,
        threads: int | None = None,
    ) -> None:
        self.description = read_description(folder)
        self.precision = usable_precision(self.description.checked_precision(precision, folder))
        self._folder = Path(folder)
        self._cache_dir = self._folder / "compiled" if cache_dir is None else Path(cache_dir)
        self._config: dict[str, object] = {
            hint.performance_mode: hint.PerformanceMode.LATENCY,
            hint.inference_precision: _arithmetic(self.precision),
        }
        if threads is not None:
            self._config[properties.inference_num_threads] = threads
        cnn = self.description.components["content_cnn"]
        self._boxes_at_once = _BOXES_AT_ONCE_WITH_CNN if cnn else _BOXES_AT_ONCE
        self._request = cache(self._compile)
        self._request("encoder", 1)

    @property
    def uses_modality(self) -> bool:
        """Whether the network takes a modality prompt."""
        return self.description.uses_modality

    @property
    def clip_image(self) -> bool:
        """Whether the network takes the CLIP feature of each crop."""
        return self.description.components["clip_image"]

    @property
    def crop_size(self) -> int:
        """Side of the crops in pixels."""
        return self.description.crop_size

    def _compile(self, graph: str, count: int) -> openvino.InferRequest:
        path = self._folder / f"{graph}{self.ending}"
        try:
            model = _core().read_model(path)
            inputs = self.description.graphs[graph]["inputs"]
            model.reshape({name: [count if size == -1 else size for size in shape] for name, shape in inputs.items()})
            try:
                caching = self._config | {properties.cache_dir: str(self._cache_dir)}
                compiled = _core().compile_model(model, "CPU", caching)
            except RuntimeError:  # a folder that cannot be written, a full disk
                compiled = _core().compile_model(model, "CPU", self._config)
            return compiled.create_infer_request()
        except RuntimeError as error:
            raise InputError(path, "graph", str(error).strip().splitlines()[-1], "one OpenVINO can run") from None

    def encode(self, images: np.ndarray) -> list[np.ndarray]:
        """Encode images, Bx3x256x256, into embeddings 1x256x64x64 float32."""
        request = self._request("encoder", 1)
        return [request.infer({"image": images[i : i + 1]})["embedding"] for i in range(len(images))]

    def clip_features(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray | None:
        """Return None: CLIP is not exported."""
        return None

    def decode(
        self,
        embedding: np.ndarray,
        boxes: np.ndarray,
        modality: int,
        crops: np.ndarray,
        image_features: np.ndarray | None = None,
    ) -> Decoded:
        """Decode N boxes of one image; see ``Backend``.

        Raises:
            ValueError: an unknown modality.
        """
        if modality >= len(self.description.modalities):
            raise ValueError(f"modality: found {modality}; allowed: below {len(self.description.modalities)}")
        if image_features is None:
            image_features = np.zeros((len(boxes), self.description.clip_width), np.float32)
        by_box = {"boxes": boxes, "crops": crops, "image_features": image_features}
        same = {"embedding": embedding, "modality": np.array([max(modality, -1)])}
        names = self.description.graphs["decoder"]["inputs"]
        parts, start = [], 0
        while start < len(boxes):
            count = next(size for size in self._boxes_at_once if size <= len(boxes) - start)
            values = same | {name: value[start : start + count] for name, value in by_box.items()}
            result = self._request("decoder", count).infer({name: values[name] for name in names})
            parts.append([result[name] for name in self.description.graphs["decoder"]["outputs"]])
            start += count
        masks, iou, *logits = (np.concatenate(values) for values in zip(*parts, strict=True))
        return Decoded(masks, iou, logits[0] if logits else None)


def usable_precision(precision: str) -> str:
    """Return the precision this processor can use: "bf16" becomes "f32" without bfloat16 instructions."""
    return "f32" if precision == "bf16" and not _computes_bfloat16() else precision


def _arithmetic(precision: str) -> openvino.Type:
    return openvino.Type.bf16 if precision != "f32" and _computes_bfloat16() else openvino.Type.f32


@cache
def _computes_bfloat16() -> bool:
    return "BF16" in _core().get_property("CPU", properties.device.capabilities)


@cache
def _core() -> openvino.Core:
    return openvino.Core()
