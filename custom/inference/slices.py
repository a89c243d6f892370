"""Boxes on single slices of a volume: each slice is segmented as a picture, and the masks go back into the volume."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from custom.images.image import Image
from custom.inference.prompt_check import CheckedPrompts
from custom.inference.segmenter import Segmentation


class SliceMasks(Sequence):
    """The masks of N boxes, each on one slice of a volume; a whole mask is made when it is accessed.

    Args:
        image: the volume.
        planes: for each box its slice k along the third axis of the source, and the mask IxJ bool.
    """

    def __init__(self, image: Image, planes: Sequence[tuple[int, np.ndarray]]) -> None:
        self.image, self.planes = image, planes

    def __len__(self) -> int:
        return len(self.planes)

    def __getitem__(self, n: int) -> np.ndarray:
        """Return the mask of box n, from 0: bool of the size of ``image.array``."""
        return in_volume(self.image, [self.planes[n]], bool)

    def area(self, n: int) -> int:
        """Return the number of pixels of mask n, from 0."""
        return int(np.count_nonzero(self.planes[n][1]))


def join_slices(
    image: Image, checked: CheckedPrompts, segment: Callable[[Image, CheckedPrompts], Segmentation]
) -> Segmentation:
    """Segment boxes slice by slice and join the results to one of the volume.

    Args:
        image: the volume.
        checked: boxes Nx4 with their slices.
        segment: segments the boxes of one picture.
    """
    slices = np.array(checked.slices)
    planes: dict[int, np.ndarray] = {}
    masks: list[tuple[int, np.ndarray] | None] = [None] * len(slices)
    ious, seconds = np.zeros(len(slices)), {}
    parts = []
    for k in dict.fromkeys(checked.slices):
        picture, numbers = image.take_slice(k), np.flatnonzero(slices == k)
        said = checked.corrections
        part = segment(
            picture, CheckedPrompts(checked.boxes[numbers], corrections=said and tuple(said[n] for n in numbers))
        )
        values = np.array([0, *(numbers + 1)], np.uint8 if len(slices) < 256 else np.uint16)
        planes[k] = picture.to_ijk(values[part.labels])[:, :, 0]
        for n, number in enumerate(numbers):
            masks[number] = (k, picture.to_ijk(part.masks[n])[:, :, 0])
        ious[numbers] = part.iou
        seconds = {stage: seconds.get(stage, 0.0) + value for stage, value in part.seconds.items()}
        parts.append((numbers, part))
    first = parts[0][1]
    probabilities = None
    if first.probabilities is not None:
        probabilities = np.zeros((len(slices), first.probabilities.shape[1]), first.probabilities.dtype)
        for numbers, part in parts:
            probabilities[numbers] = part.probabilities
    return Segmentation(
        labels=in_volume(image, list(planes.items()), next(iter(planes.values())).dtype),
        masks=SliceMasks(image, masks),
        iou=ious,
        modality=first.modality,
        probabilities=probabilities,
        seconds=seconds,
    )


def in_volume(image: Image, planes: Sequence[tuple[int, np.ndarray]], dtype: np.typing.DTypeLike) -> np.ndarray:
    """Put planes IxJ at slices k of an otherwise empty array of the size of the volume's ``array``."""
    whole = np.zeros(image.array.shape[:3], dtype)
    for k, plane in planes:
        if image.geometry is None:
            whole[k] = plane.T
        else:
            image.geometry.put_slice(whole, plane, k)
    return whole
