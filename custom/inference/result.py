"""The result for one image: masks in the source's own shape, numbers, and files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from custom.images.formats import stem
from custom.images.image import Image
from custom.images.measures import longest_diameter
from custom.inference.corrections import Corrections
from custom.inference.segmenter import Segmentation
from custom.modalities import MODALITIES
from custom.version import __version__

#: From this probability on, a different prediction contradicts a declared modality.
SURE = 0.5
#: Below this predicted IoU a mask should be checked.
LOW_IOU = 0.5
_ML = 1e-3  # of a mm3


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """The objects inside N boxes of an image.

    Attributes:
        image: the segmented image.
        boxes: Nx4, in a volume Nx6, in pixels of the source; Nx4 with ``slices``; NaN for an object without.
        slices: slice of each box of 4 numbers in a volume, or None.
        corrections: clicks and mask of each object in pixels of the source, or None.
        names: N names.
        segmentation: the masks on the grid of ``image.array``.
        model: backend, precision, checkpoint and digest that were used.
        seconds: seconds by stage: "read", "encode", "decode" and "resize".
    """

    image: Image
    boxes: np.ndarray
    slices: tuple[int, ...] | None
    names: tuple[str, ...]
    segmentation: Segmentation
    model: Mapping[str, Any]
    seconds: Mapping[str, float]
    corrections: Sequence[Corrections] | None = None

    @cached_property
    def masks(self) -> Sequence[np.ndarray]:
        """N masks, bool, in the source's own shape: HxW, DxHxW, for NIfTI IxJxK. Each is made when accessed."""
        return _SourceMasks(self)

    @cached_property
    def labels(self) -> np.ndarray:
        """Label map in the source's own shape, uint8 or uint16: value k is the mask of box k."""
        return self.image.to_source(self.segmentation.labels)

    @property
    def iou(self) -> np.ndarray:
        """Predicted IoU of each mask, N."""
        return self.segmentation.iou

    @property
    def modality(self) -> str | None:
        """The modality the network was prompted with: declared, or predicted by its classifier."""
        return self.image.modality or self.segmentation.modality

    @property
    def unit(self) -> str | None:
        """Unit of ``volumes``: "mm2" for a picture, "mL" for a volume; None without a spacing."""
        if self.image.spacing is None:
            return None
        return "mm2" if self.image.kind == "picture" else "mL"

    @cached_property
    def volumes(self) -> np.ndarray | None:
        """Size of each object in the label map, N: mm2 or mL, see ``unit``; None without a spacing."""
        if self.unit is None:
            return None
        factor = float(np.prod(self.image.spacing)) * (_ML if self.unit == "mL" else 1.0)
        return np.array(self.counts()) * factor

    def counts(self, *, separate: bool = False) -> list[int]:
        """Count the pixels of each object in the label map, or with ``separate`` in its own mask."""
        if separate:
            return [self.segmentation.masks.area(k) for k in range(len(self.boxes))]
        counts = np.zeros(len(self.boxes) + 1, np.int64)
        for part in self._occupied:  # slice by slice, since bincount converts its input to int64
            counts += np.bincount(part.ravel(), minlength=len(self.boxes) + 1)
        return counts[1:].tolist()

    @cached_property
    def _occupied(self) -> np.ndarray:
        """The slices of the label map with an object: ZxHxW, Z = 1 for a picture."""
        labels = self.segmentation.labels
        return labels[labels.any(axis=(1, 2))] if labels.ndim == 3 else labels[None]

    def save(
        self,
        folder: str | PathLike[str],
        *,
        name: str | None = None,
        format: str | None = None,
        separate: bool = False,
    ) -> dict[str, Any]:
        """Write the masks, an overlay and a JSON file with the numbers; return the content of the JSON file.

        Args:
            folder: created if missing.
            name: name of the files: <name>_mask.*, <name>_overlay.png, <name>.json; by default the image's.
            format: of the masks: nifti, nrrd, mha, mgz, png, tiff, npz, seg, rtstruct; by default the image's own,
                else one that can hold them.
            separate: write one file per object, <name>_mask_<k>.*, with 0 and 1.

        Raises:
            InputError: the format cannot hold the masks.
            OSError: a file cannot be written.
        """
        from custom.images.formats import mask_format
        from custom.inference.result_files import write_result

        module, _ = mask_format(self.image, format)
        own = name or stem(self.image.path)
        return write_result(self, Path(folder), own, module, separate=separate)

    def describe(self, *, separate: bool = False) -> dict[str, Any]:
        """Return the numbers of the result as JSON values; ``separate`` measures each object's own mask."""
        image, counts = self.image, self.counts(separate=separate)
        predicted = "classifier" if self.segmentation.modality else None
        return {
            "image": image.path,
            "kind": image.kind,
            "size": list(image.size),
            "spacing": None if image.source_spacing is None else list(image.source_spacing),
            "modality": self.modality,
            "modality_source": image.modality_source or predicted,
            **image.notes,
            "boxes": [self._describe_box(k, count, separate) for k, count in enumerate(counts)],
            "model": dict(self.model),
            "seconds": {stage: round(value, 4) for stage, value in self.seconds.items()},
            "version": __version__,
        }

    def _describe_box(self, k: int, count: int, separate: bool) -> dict[str, Any]:
        image, segmentation = self.image, self.segmentation
        box = None
        if np.isfinite(self.boxes[k]).all():
            box = _plain(self.boxes[k])
        entry: dict[str, Any] = {"name": self.names[k], "box": box, "iou": round(float(self.iou[k]), 4)}
        if self.slices is not None:
            entry["slice"] = self.slices[k]
        if self.corrections is not None:
            given = self.corrections[k]
            entry |= {"points": [_plain(point) for point in given.points], "point_labels": given.labels.tolist()}
            entry["corrects_mask"] = given.mask is not None
        pixels, measure = ("area", "area_mm2") if image.kind == "picture" else ("voxels", "volume_mm3")
        entry[pixels] = count
        if image.spacing is not None:
            mask = np.atleast_3d(segmentation.masks[k].T).T if separate else self._occupied == k + 1
            entry[measure] = round(count * float(np.prod(image.spacing)), 4)
            entry["longest_diameter_mm"] = round(longest_diameter(mask, (1.0, *image.spacing[-2:])), 3)
        entry |= {"declared_modality": image.modality, "modality": segmentation.modality}
        warnings = []
        if self.iou[k] < LOW_IOU:
            warnings.append(f"predicted IoU {self.iou[k]:.2f}: look at this mask")
        if segmentation.probabilities is not None:
            likely = int(segmentation.probabilities[k].argmax())
            predicted, probability = MODALITIES[likely], float(segmentation.probabilities[k, likely])
            entry |= {"predicted_modality": predicted, "probability": round(probability, 4)}
            if image.modality not in (None, predicted) and probability >= SURE:
                warnings.append(f"declared {image.modality}, but it looks like {predicted} ({probability:.0%})")
        return entry | ({"warning": "; ".join(warnings)} if warnings else {})


def _plain(values: np.ndarray) -> list[int | float]:
    """Return numbers for JSON, whole ones without a point."""
    return [int(v) if v == int(v) else float(v) for v in values]


class _SourceMasks(Sequence):
    """The masks of a result in the shape of the source."""

    def __init__(self, result: Result) -> None:
        self._result = result

    def __len__(self) -> int:
        return len(self._result.boxes)

    def __getitem__(self, k: int) -> np.ndarray:
        if not -len(self) <= k < len(self):
            raise IndexError(k)
        return self._result.image.to_source(self._result.segmentation.masks[k % len(self)])

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[k] for k in range(len(self)))
