"""Run an exported network with OpenVINO on the CPU; needs neither PyTorch nor MONAI."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from os import PathLike
from pathlib import Path

import numpy as np
import openvino
from openvino import properties
from openvino.properties import hint

from custom.errors import InputError
from custom.export.folder import read_description
from custom.images.frame import IMAGE_SIZE
from custom.inference.backend import Decoded
from custom.prompts import NO_BOX, NO_POINT, Prompts

# Fixed sizes, since OpenVINO computes graphs of a free size up to twice as slowly (it then converts tensors between
# layouts). With the content CNN, several objects at once are no faster than one by one.
_OBJECTS_AT_ONCE, _OBJECTS_AT_ONCE_WITH_CNN = (4, 1), (1,)
_SMALLEST, _NEXT = 1, 8  # numbers of clicks: 1, 8, 32, 128 and so on


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
        self._objects_at_once = _OBJECTS_AT_ONCE_WITH_CNN if cnn else _OBJECTS_AT_ONCE
        self._request = cache(self._compile)
        self._request("encoder", 1, 1)

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

    @property
    def takes_clicks(self) -> bool:
        """Whether the weights were trained with clicks."""
        return self.description.takes_clicks

    @property
    def click_tokens(self) -> bool:
        """Whether clicks change the decoder's answer to a box."""
        return self.description.click_tokens

    def _compile(self, graph: str, objects: int, clicks: int) -> openvino.InferRequest:
        path = self._folder / f"{graph}{self.ending}"
        config = self._config
        if graph == "correction":  # pixels are exact
            config = config | {hint.inference_precision: openvino.Type.f32}
        try:
            model = _core().read_model(path)
            sizes, inputs = (objects, clicks), self.description.graphs[graph]["inputs"]
            model.reshape(
                {name: [sizes[i] if n == -1 else n for i, n in enumerate(shape)] for name, shape in inputs.items()}
            )
            try:
                caching = config | {properties.cache_dir: str(self._cache_dir)}
                compiled = _core().compile_model(model, "CPU", caching)
            except RuntimeError:  # a folder that cannot be written, a full disk
                compiled = _core().compile_model(model, "CPU", config)
            return compiled.create_infer_request()
        except RuntimeError as error:
            raise InputError(path, "graph", str(error).strip().splitlines()[-1], "one OpenVINO can run") from None

    def _run(
        self,
        graph: str,
        by_object: Mapping[str, np.ndarray],
        same: Mapping[str, np.ndarray] | None = None,
        sizes: tuple[int, ...] = (1,),
    ) -> list[np.ndarray]:
        """Run a graph on values of N objects, some at once, and values that are the same for all; return its outputs.

        Args:
            graph: its name.
            by_object: N... each; what the graph does not take is ignored.
            same: further inputs.
            sizes: numbers of objects at once, from large to small; the last one is 1.
        """
        described, same = self.description.graphs[graph], same or {}
        given = {name: value for name, value in by_object.items() if name in described["inputs"]}
        clicks = given["point_labels"].shape[1] if "point_labels" in given else 1
        (total,) = {len(value) for value in given.values()}
        parts, start = [], 0
        while start < total:
            count = next(size for size in sizes if size <= total - start)
            values = {name: value[start : start + count] for name, value in given.items()}
            result = self._request(graph, count, clicks).infer(values | same)
            parts.append([result[name] for name in described["outputs"]])
            start += count
        return [np.concatenate(values) for values in zip(*parts, strict=True)]

    def encode(self, images: np.ndarray) -> list[np.ndarray]:
        """Encode images, Bx3x256x256, into embeddings 1x256x64x64 float32."""
        request = self._request("encoder", 1, 1)
        return [request.infer({"image": images[i : i + 1]})["embedding"] for i in range(len(images))]

    def clip_features(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray | None:
        """Return None: CLIP is not exported."""
        return None

    def encode_content(self, crops: np.ndarray) -> np.ndarray | None:
        """Return the dense content prompt of crops, Nx3xSxS -> Nx256x64x64; None without the content CNN."""
        return self._run("content", {"crops": crops})[0] if "content" in self.description.graphs else None

    def decode(self, embedding: np.ndarray, prompts: Prompts, answer: Decoded | None = None) -> Decoded:
        """Decode N objects of one image; see ``Backend``. What is sent where is decided as by ``MCPMedSAM.decode``.

        Raises:
            ValueError: an unknown modality.
        """
        if answer is None or self.click_tokens:
            answer = self._answer(embedding, prompts)
        if prompts.views is None or not (prompts.correcting and "correction" in self.description.graphs):
            return answer
        values = {"mask_logits": answer.mask_logits, "views": prompts.views, "view_boxes": prompts.view_boxes}
        mask_logits, iou = self._run("correction", values | _clicks(prompts))
        return answer._replace(mask_logits=mask_logits, iou=answer.iou + iou)

    def _answer(self, embedding: np.ndarray, prompts: Prompts) -> Decoded:
        """Run the decoder."""
        modality = -1 if prompts.modality is None else max(prompts.modality, -1)
        if modality >= len(self.description.modalities):
            raise ValueError(f"modality: found {modality}; allowed: below {len(self.description.modalities)}")
        prompts = prompts._replace(modality=None, views=None, view_boxes=None)
        if not self.click_tokens:
            prompts = prompts.without_corrections()
        boxless = prompts.boxes[:, 2] <= NO_BOX
        rows = [np.flatnonzero(chosen) for chosen in (~boxless, boxless)]
        parts = [
            self._run_decoder(graph, embedding, modality, prompts.map(lambda value, chosen=chosen: value[chosen]))
            for graph, chosen in zip(("decoder", "click_decoder"), rows, strict=True)
            if len(chosen)
        ]
        order = np.concatenate(rows).argsort()
        masks, iou, *logits = (np.concatenate(values)[order] for values in zip(*parts, strict=True))
        return Decoded(masks, iou, logits[0] if logits else None)

    def _run_decoder(self, graph: str, embedding: np.ndarray, modality: int, prompts: Prompts) -> list[np.ndarray]:
        """Run one of the decoders on objects that all have a box, or none of them."""
        count, inputs = len(prompts.boxes), self.description.graphs[graph]["inputs"]
        values = {"boxes": prompts.boxes} | _clicks(prompts)
        if "content" in inputs:
            values["content"] = self.encode_content(prompts.crops) if prompts.content is None else prompts.content
        if "crops" in inputs:
            values["crops"] = prompts.crops
            values["crop_boxes"] = prompts.boxes if prompts.crop_boxes is None else prompts.crop_boxes
        if "image_features" in inputs:
            none = np.zeros((count, self.description.clip_width), np.float32)
            values["image_features"] = none if prompts.image_features is None else prompts.image_features
        same = {"embedding": embedding, "modality": np.array([modality])}
        return self._run(graph, values, same, self._objects_at_once)


def _clicks(prompts: Prompts) -> dict[str, np.ndarray]:
    """Return clicks and masks as the graphs take them: "no point" and zeros where there is none."""
    count = len(prompts.boxes)
    given = 0 if prompts.points is None else prompts.points.shape[1]
    padded = _SMALLEST
    while padded < given:
        padded = max(_NEXT, 4 * padded)
    points = np.zeros((count, padded, 2), np.float32)
    labels = np.full((count, padded), NO_POINT, np.int64)
    if given:
        points[:, :given], labels[:, :given] = prompts.points, prompts.point_labels
    masks = np.zeros((count, IMAGE_SIZE, IMAGE_SIZE), np.float32) if prompts.masks is None else prompts.masks
    return {"points": points, "point_labels": labels, "masks": masks}


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
