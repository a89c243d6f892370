"""From a request's image and boxes to masks on the image's own grid, with everything kept that the next click needs."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from custom.errors import InputError
from custom.inference.models import Model
from custom.inference.results import CaseResult, describe
from custom.inference.segmenter import BoxSegmenter
from custom.inference.sources import InputImage
from custom.label_app.conf import Conf
from custom.label_app.embedding_cache import CachedBackend
from custom.label_app.grid import put_slice, take_slice, to_source
from custom.label_app.image_cache import ImageCache
from custom.label_app.roi import Prompt, parse_prompt
from custom.label_app.weights import Weights
from custom.modalities import MODALITIES, canonical_modality

#: The first choice in the client: DICOM, the file's name or the network itself tells the modality.
AUTO = "auto"
CHOICES = (AUTO, *MODALITIES)


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """The answer to one request.

    Attributes:
        image: the whole image.
        labels: IxJxK in the axes of the file, value k for box k; K = 1 for a picture.
        told: what the JSON says.
        iou: predicted IoU, the mean over the boxes.
    """

    image: InputImage
    labels: np.ndarray
    told: dict[str, Any]
    iou: float


class Predictor:
    """Segments; one request at a time, so that memory is that of one image beside the two caches.

    Args:
        weights: tells the weights to use.
        conf: sizes of the caches, names of objects.
    """

    def __init__(self, weights: Weights, conf: Conf) -> None:
        self.weights, self.conf = weights, conf
        self.images = ImageCache(conf.image_mb * 2**20)
        self._model: Model | None = None
        self._backend: CachedBackend | None = None
        self._lock = threading.Lock()

    def predict(self, path: Path, request: Mapping[str, Any], *, dimension: int) -> Prediction:
        """Segment the boxes of a request.

        Args:
            path: the image file.
            request: boxes as ``custom.label_app.roi`` tells; ``modality``, one of ``CHOICES``; ``label``, name of the
                object.
            dimension: 2 for one slice, 3 for a volume.

        Raises:
            InputError: the image, its boxes or the modality cannot be used.
        """
        modality = declared_modality(request)
        with self._lock:
            start = time.perf_counter()
            image = self.images.read(path, modality)
            prompt = parse_prompt(request, image.size, dimension=dimension, flat=_flat_axis(image))
            seen = image if prompt.slice is None else take_slice(image, prompt.slice)
            read = time.perf_counter() - start
            return self._segment(image, seen, prompt, str(request.get("label") or ""), read)

    def glance(self, path: Path, modality: str | None) -> float:
        """Return the predicted IoU of a box around the whole middle slice of an image nobody has drawn in.

        Raises:
            InputError: the image cannot be read.
        """
        with self._lock:
            width, height, *depth = self.images.read(path, declared_modality({"modality": modality})).size
        whole = {"box": [0, 0, width - 1, height - 1], "slice": depth[0] // 2 if depth else None}
        return self.predict(path, whole | {"modality": modality}, dimension=2).iou

    def _segment(self, image: InputImage, seen: InputImage, prompt: Prompt, label: str, read: float) -> Prediction:
        boxes = seen.checked_boxes(prompt.boxes)
        model, backend = self._started()
        segmenter, places = BoxSegmenter(backend), seen.boxes_to_array(boxes)
        if seen.kind == "picture":
            segmentation = segmenter.segment_picture(seen.array, places, seen.modality)
        else:
            segmentation = segmenter.segment_volume(seen.array, places, seen.modality)
        labels = to_source(segmentation.labels, seen)
        told = {key: model.told[key] for key in ("backend", "precision", "digest")}
        result = CaseResult(
            image=seen, boxes=boxes, segmentation=segmentation, told=told, fingerprint="", read_seconds=read
        )
        return Prediction(
            image=image,
            labels=labels if prompt.slice is None else put_slice(labels, image, prompt.slice),
            told=self._told(result, prompt.slice, label),
            iou=float(segmentation.iou.mean()),
        )

    def _started(self) -> tuple[Model, CachedBackend]:
        """Return the model in use; with other weights, the embeddings of the old ones are dropped."""
        model = self.weights.current()
        if model is not self._model or self._backend is None:
            self._backend = None  # its memory first
            self._backend = CachedBackend(model.start(), capacity=self.conf.embeddings)
            self._model = model
        return model, self._backend

    def _told(self, result: CaseResult, k: int | None, label: str) -> dict[str, Any]:
        """Describe the result in the words of ``custom.segment``, with what MONAI Label's clients look for."""
        told = describe(result)
        del told["image"]  # a path of the server is nobody's business
        seconds = told.pop("seconds")
        names = box_names(len(result.boxes), label, self.conf.names)
        boxes = [{"label": names[n], "value": n + 1, **box} for n, box in enumerate(told["boxes"])]
        return {
            **told,
            "boxes": boxes,
            "label_names": {name: n for n, name in enumerate(names, start=1)},
            "slice": k,
            "warnings": [f"{box['label']}: {box['warning']}" for box in boxes if "warning" in box],
            "latencies": seconds,
        }


def declared_modality(request: Mapping[str, Any]) -> str | None:
    """Return the modality the client chose; None for "auto" and for a list of choices nobody has chosen from.

    Raises:
        InputError: it is none of the eleven.
    """
    value = request.get("modality")
    if value is None or value == AUTO or isinstance(value, (list, tuple)):
        return None
    if not isinstance(value, str):
        raise InputError("request", "modality", repr(value), ", ".join(CHOICES))
    return canonical_modality(value, "request")


def box_names(count: int, label: str, known: list[str]) -> list[str]:
    """Name the objects of a request: by its label, else by the server's names; more of them are numbered.

    Example:
        >>> box_names(2, "cyst", ["object"])
        ['cyst 1', 'cyst 2']
    """
    name = label or known[0]
    return [name] if count == 1 else [f"{name} {k}" for k in range(1, count + 1)]


def _flat_axis(image: InputImage) -> int:
    """Return the axis of the file along which a picture has its single pixel."""
    if image.geometry is None or image.kind == "volume":
        return 2
    return max(axis for axis, n in enumerate(image.geometry.shape) if n == 1)
