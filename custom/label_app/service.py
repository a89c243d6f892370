"""From a request's image, boxes and clicks to masks on the image's own grid, with caches for the next click."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from custom.errors import InputError
from custom.images.formats import Format, has_ending, mask_format, mask_formats
from custom.images.image import Image
from custom.inference.models import Model
from custom.inference.predictor import Predictor
from custom.inference.result import Result
from custom.label_app.conf import Conf
from custom.label_app.image_cache import ImageCache
from custom.label_app.roi import has_clicks, parse_prompt
from custom.label_app.weights import Weights
from custom.modalities import MODALITIES, canonical_modality

#: The first choice in the client: DICOM, the file name or the network decides the modality.
AUTO = "auto"
CHOICES = (AUTO, *MODALITIES)
#: Endings of masks that a client may request.
ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".png", ".tif")


class SegmentationService:
    """Segments one request at a time, so that memory holds only one image besides the caches.

    Args:
        weights: decides which weights to use.
        conf: sizes of the caches, names of objects, the meaning of clicks.
    """

    def __init__(self, weights: Weights, conf: Conf) -> None:
        self.weights, self.conf = weights, conf
        self.images = ImageCache(conf.image_mb * 2**20)
        self._predictor: Predictor | None = None
        self._lock = threading.Lock()

    def segment(self, path: Path, request: Mapping[str, Any], *, dimension: int) -> Result:
        """Segment what the boxes and clicks of a request mean.

        Args:
            path: the image file.
            request: boxes and clicks as ``custom.label_app.roi`` describes; ``modality``, one of ``CHOICES``;
                ``label``, name of the object.
            dimension: 2 for one slice, 3 for a volume.

        Raises:
            InputError: the image, its boxes, clicks or the modality cannot be used.
        """
        modality = declared_modality(request)
        with self._lock:
            image = self.images.read(path, modality)
            flat = 2 if image.flat_axis is None else image.flat_axis
            # Asking starts the network, so only if there are clicks.
            takes_clicks = has_clicks(request) and self._in_use().network.start().takes_clicks
            meaning = self.conf.clicks if takes_clicks else None
            prompt = parse_prompt(request, image.size, dimension=dimension, flat=flat, clicks=meaning)
            mask_file_format(image, request)  # before the network runs
            names = box_names(prompt.count, str(request.get("label") or ""), self.conf.names)
            predictor = self._in_use()
            predictor.set_image(image)
            clicks = {}
            if prompt.points is not None:
                clicks = {"points": [prompt.points.tolist()], "point_labels": [prompt.point_labels.tolist()]}
            return predictor.predict(prompt.boxes, slice=prompt.slice, names=names, **clicks)

    def glance(self, path: Path, modality: str | None) -> float:
        """Return the predicted IoU of a box around the whole middle slice of an image without boxes.

        Raises:
            InputError: the image cannot be read.
        """
        with self._lock:
            width, height, *depth = self.images.read(path, declared_modality({"modality": modality})).size
        whole = {"box": [0, 0, width - 1, height - 1], "slice": depth[0] // 2 if depth else None}
        return float(self.segment(path, whole | {"modality": modality}, dimension=2).iou.mean())

    def _in_use(self) -> Predictor:
        """Return the predictor of the weights in use; new weights drop the embeddings of the old ones."""
        network: Model = self.weights.current()
        if self._predictor is None or self._predictor.network is not network:
            self._predictor = None  # free its memory first
            self._predictor = Predictor(network=network, embeddings=self.conf.embeddings)
        return self._predictor


def answer(result: Result) -> dict[str, Any]:
    """Describe a result as ``custom.segment`` does, with the fields that MONAI Label's clients expect."""
    report = result.describe()
    del report["image"]  # do not show paths of the server
    seconds, model = report.pop("seconds"), report.pop("model")
    boxes = [{"label": box["name"], "value": n, **box} for n, box in enumerate(report["boxes"], start=1)]
    return {
        **report,
        **{key: model[key] for key in ("backend", "precision", "digest")},
        "boxes": boxes,
        "label_names": {name: n for n, name in enumerate(result.names, start=1)},
        "slice": None if result.slices is None else result.slices[0],
        "warnings": [f"{box['label']}: {box['warning']}" for box in boxes if "warning" in box],
        "latencies": seconds,
    }


def write_mask_file(result: Result, request: Mapping[str, Any]) -> Path:
    """Write the label map of a result to a new file in the folder for temporary files.

    Raises:
        InputError: see ``mask_file_format``.
        OSError: the file cannot be written.
    """
    module, ending = mask_file_format(result.image, request)
    with tempfile.NamedTemporaryFile(suffix=ending, delete=False) as file:
        path = Path(file.name)
    try:
        names = dict(enumerate(result.names, start=1))
        module.write_mask(path, result.segmentation.labels, names, result.image)
    except BaseException:
        path.unlink(missing_ok=True)  # the caller never learns its name
        raise
    return path


def mask_file_format(image: Image, request: Mapping[str, Any]) -> tuple[Format, str]:
    """Return the format and the ending of the mask that a client requests.

    Args:
        image: the image of the request.
        request: ``result_extension``, one of ``ENDINGS``: .nrrd for 3D Slicer and OHIF; by default that of the image's
            kind.

    Raises:
        InputError: another ending (it would become part of a path), or one that cannot hold the mask.
    """
    ending, (own, _) = request.get("result_extension"), mask_format(image)
    if not ending:
        return own, own.mask_ending(image)
    if ending not in ENDINGS:
        raise InputError("request", "result_extension", repr(ending), ", ".join(ENDINGS))
    module = next(module for module in mask_formats().values() if has_ending(f"mask{ending}", module.ENDINGS))
    problem = module.mask_problem(image)
    if problem is not None:
        allowed = f"{own.mask_ending(image)}, .nrrd for this image"
        raise InputError("request", "result_extension", f"{ending!r} for {problem}", allowed)
    return module, ending


def declared_modality(request: Mapping[str, Any]) -> str | None:
    """Return the modality the client chose; None for "auto" and for an unchanged list of choices.

    Raises:
        InputError: it is not one of the eleven.
    """
    value = request.get("modality")
    if value is None or value == AUTO or isinstance(value, (list, tuple)):
        return None
    if not isinstance(value, str):
        raise InputError("request", "modality", repr(value), ", ".join(CHOICES))
    return canonical_modality(value, "request")


def box_names(count: int, label: str, known: list[str]) -> list[str]:
    """Name the objects of a request: by its label, else by the server's names; several are numbered.

    Example:
        >>> box_names(2, "cyst", ["object"])
        ['cyst 1', 'cyst 2']
    """
    name = label or known[0]
    return [name] if count == 1 else [f"{name} {k}" for k in range(1, count + 1)]
