"""Segment images by boxes and clicks: ``set_image``, then ``predict``, as in SAM."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from os import PathLike

import numpy as np

from custom.errors import InputError
from custom.images.image import Image
from custom.images.intensity import Window
from custom.images.reading import image_of_array, read_image
from custom.inference.backend import Backend
from custom.inference.cached_backend import CachedBackend
from custom.inference.label_map import check_overlap
from custom.inference.models import Model, choose_model
from custom.inference.prompt_check import CheckedPrompts, check_names, check_prompts, placed_boxes
from custom.inference.result import Result
from custom.inference.segmenter import BoxSegmenter, Segmentation
from custom.inference.slices import join_slices
from custom.modalities import canonical_modality


class Predictor:
    """Segments what boxes and clicks mean; weights and backend start with the first ``predict``.

    Args:
        checkpoint: weights, those of the bundle by default; "lite_medsam" for LiteMedSAM's.
        backend: "auto", "torch" or "openvino". "auto" uses a GPU if there is one, else OpenVINO, for which the
            weights are exported once into the user's cache, else PyTorch.
        model: folder of an exported network, instead of ``checkpoint``.
        precision: "f32" or "bf16"; by default the fastest on this processor.
        device: where PyTorch computes, e.g. "cuda:1".
        clip: the CLIP the weights were trained with: "auto", "none", a hub name or a local folder.
        embeddings: image embeddings kept for further prompts, 4 MB each; 0 keeps none.
        network: an existing network, instead of all of the above.

    Example:
        >>> predictor = Predictor()
        >>> predictor.set_image("eye.png", modality="Fundus")  # doctest: +SKIP
        >>> result = predictor.predict(boxes=[122, 545, 322, 750])  # doctest: +SKIP
        >>> result.masks[0].shape, result.iou, result.save("results")  # doctest: +SKIP
    """

    def __init__(
        self,
        checkpoint: str | PathLike[str] | None = None,
        *,
        backend: str = "auto",
        model: str | PathLike[str] | None = None,
        precision: str | None = None,
        device: str | None = None,
        clip: str = "auto",
        embeddings: int = 32,
        network: Model | None = None,
    ) -> None:
        self.network = network or choose_model(
            checkpoint=None if checkpoint is None else str(checkpoint),
            backend=backend,
            model=None if model is None else str(model),
            precision=precision,
            device=device,
            clip=clip,
        )
        self.embeddings = embeddings
        self._image: Image | None = None
        self._started: Backend | None = None
        self._read_seconds = 0.0

    @property
    def image(self) -> Image:
        """The current image.

        Raises:
            InputError: no image is set.
        """
        if self._image is None:
            raise InputError("Predictor", "image", "no image", "set_image before predict")
        return self._image

    def set_image(
        self,
        image: str | PathLike[str] | Image | np.ndarray,
        modality: str | None = None,
        *,
        window: str | Window = "soft_tissue",
        suv_max: float | None = None,
        frame: int | None = None,
        series: str | int | None = None,
    ) -> None:
        """Set the image for the following prompts.

        Args:
            image: a path; an ``Image`` of ``read_image``; or an array HxW, HxWx3, DxHxW or DxHxWx3.
            modality: one of the eleven; None uses what the file declares, else what the network predicts.
            window: for CT that is not uint8; see ``read_image``.
            suv_max: upper end of the range of a PET in SUV.
            frame: number of the volume in a 4D file, from 0.
            series: which DICOM series of a folder.

        Raises:
            InputError: the image or the modality cannot be used.
        """
        start = time.perf_counter()
        if isinstance(image, Image):
            declared = None if modality is None else canonical_modality(modality, "arguments")
            kept = {} if declared is None else {"modality": declared, "modality_source": "argument"}
            self._image = replace(image, **kept)
        elif isinstance(image, np.ndarray):
            self._image = image_of_array(image, modality, window, suv_max)
        else:
            self._image = read_image(image, modality, window, suv_max, frame, series)
        self._read_seconds = time.perf_counter() - start

    def predict(
        self,
        boxes: object = None,
        *,
        slice: int | Sequence[int] | None = None,
        points: object = None,
        point_labels: object = None,
        masks: object = None,
        names: Sequence[str] | str | None = None,
        overlap: str = "logit",
        follow: bool = True,
        progress: Callable[[int, int], None] | None = None,
    ) -> Result:
        """Segment N objects of the image by boxes, clicks and masks.

        Args:
            boxes: one box or N, in pixels of the source as stored, both ends inside: x_min y_min x_max y_max, in a
                volume x_min y_min z_min x_max y_max z_max. None takes those of the file (npz), unless there are clicks
                or masks.
            slice: the slice (along the third axis) of boxes of 4 numbers in a volume, or one for each box.
            points: clicks of each object, x y or in a volume x y z, in pixels of the source; for one object also
                without the outer list. A click corrects the mask that the prompts before it give. Pictures need no
                box: the first click then finds the object.
            point_labels: for each click 1 (on the object) or 0 (beside it); 1 by default.
            masks: mask of each object to correct, in the source's own shape, or an earlier ``Result``; for pictures.
            names: a name for each object; "box 1" to "box N" by default.
            overlap: which mask gets a pixel of ``labels`` that several cover: "logit" (the one with the largest logit),
                "smaller" or "last" (box).
            follow: follow an object through the slices of a volume; False prompts each slice with the box.
            progress: for a volume: called with the number of slices done and the total.

        Raises:
            InputError: no image is set, a prompt does not fit it, or the network cannot be started.
        """
        image = self.image
        if isinstance(masks, Result):
            masks = masks.masks
        checked = check_prompts(image, boxes, slice, points, point_labels, masks)
        check_overlap(overlap)
        titles = check_names(names, len(checked.boxes), image.path)
        segmentation = self.segment(image, checked, overlap=overlap, follow=follow, progress=progress)
        return Result(
            image=image,
            boxes=checked.boxes,
            slices=checked.slices,
            corrections=checked.corrections,
            names=titles,
            segmentation=segmentation,
            model=self.network.facts,
            seconds={"read": self._read_seconds, **segmentation.seconds},
        )

    def segment(
        self,
        image: Image,
        checked: CheckedPrompts,
        *,
        overlap: str = "logit",
        follow: bool = True,
        keep_logits: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Segmentation:
        """Segment objects of any image by prompts that were checked; for the rest see ``predict``.

        Args:
            image: the image, whatever ``set_image`` has set.
            checked: its prompts.
            overlap: which mask gets a pixel that several cover.
            follow: follow an object through the slices of a volume.
            keep_logits: keep what ``custom.inference.joining`` needs.
            progress: called after each slice of a volume.

        Raises:
            InputError: the network cannot be started, or was not trained with clicks.
        """
        if checked.corrections is not None:
            self.require_clicks("points" if any(len(given.points) for given in checked.corrections) else "masks")
        segmenter = BoxSegmenter(
            self._backend(), overlap=overlap, keep_masks=True, keep_logits=keep_logits, progress=progress
        )
        return _segment(image, checked, segmenter, follow)

    def require_clicks(self, field: str = "points") -> None:
        """Check that the network takes clicks and masks; this starts it.

        Args:
            field: the argument to name in the error.

        Raises:
            InputError: it was trained with boxes only, or cannot be started.
        """
        if not self._backend().takes_clicks:
            allowed = "boxes, or weights that were trained with clicks"
            raise InputError("arguments", field, "clicks or masks", allowed)

    def _backend(self) -> Backend:
        if self._started is None:
            backend = self.network.start()
            self._started = CachedBackend(backend, capacity=self.embeddings) if self.embeddings else backend
        return self._started


def _segment(image: Image, checked: CheckedPrompts, segmenter: BoxSegmenter, follow: bool) -> Segmentation:
    if checked.slices is not None:
        return join_slices(image, checked, lambda part, boxes: _segment(part, boxes, segmenter, follow))
    placed = placed_boxes(image, checked.boxes)
    said = checked.corrections and [
        replace(given, points=image.points_to_array(given.points)) for given in checked.corrections
    ]
    if image.kind == "picture":
        return segmenter.segment_picture(image.array, placed, image.modality, corrections=said)
    return segmenter.segment_volume(image.array, placed, image.modality, follow=follow, corrections=said)
