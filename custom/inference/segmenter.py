"""Segment what is inside boxes, on a picture or through a volume, with any backend."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from custom.errors import InputError
from custom.images.boxes import tight_boxes
from custom.images.frame import Frame, crop_box
from custom.inference.backend import Backend, Decoded
from custom.inference.corrections import Correction, Corrections
from custom.inference.label_map import BoxMasks, Canvas, check_overlap
from custom.modalities import MODALITIES, modality_index
from custom.prompts import Prompts

#: Before the box of a mask prompts the next slice, it grows by this margin: pixels of the 256 frame, but at least this
#: number of pixels of the slice, since a small slice is magnified and objects change by whole pixels of it.
NEXT_SLICE_MARGIN = (5, 2)
#: The same before it prompts its own slice again.
SAME_SLICE_MARGIN = (1, 0)
#: Number of boxes, the largest ones, from which an undeclared modality is predicted.
_VOTES = 4


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """Result for N boxes.

    Attributes:
        labels: label map of the image's size, uint8 or uint16: value k is the mask of box k (from 1).
        masks: N bool masks of the image's size, which may overlap; None unless requested.
        iou: predicted IoU of each box, N float; for a volume the mean over its slices.
        modality: modality the network was prompted with, or None if it takes no modality.
        probabilities: probability of each modality by box, NxM, or None without a modality prompt.
        seconds: seconds by stage: "encode", "decode" and "resize".
    """

    labels: np.ndarray
    masks: BoxMasks | None
    iou: np.ndarray
    modality: str | None
    probabilities: np.ndarray | None
    seconds: dict[str, float]


class _Slice(NamedTuple):
    """A picture or slice as CxHxW uint8, its frame, and its embedding."""

    image: np.ndarray
    frame: Frame
    embedding: object


class _Mask(NamedTuple):
    """Logits HxW of native size, predicted IoU, and logits of the modality (M) or None."""

    logits: np.ndarray
    iou: float
    modality: np.ndarray | None


@dataclass
class _Track:
    """The state of one box on its way through the slices: boxes of 4 numbers, IoUs and modality logits."""

    given: np.ndarray
    current: np.ndarray
    start: np.ndarray
    iou: list[float] = field(default_factory=list)
    modality: list[np.ndarray] = field(default_factory=list)


class BoxSegmenter:
    """Encode each image once and decode its boxes together.

    Args:
        backend: runs encoder and decoder.
        overlap: which mask gets a pixel that several cover: "logit", the one with the largest logit; "smaller", the one
            with fewer pixels (on the slice); "last", that of the last box.
        keep_masks: also return each box's own mask.
        keep_logits: with its logits, for ``join_objects``.
        boxes_at_once: boxes decoded together.
        slices_at_once: slices of a volume encoded together.
        slices_kept: embeddings of a volume kept for a second visit (2 to 4 MB each); further slices are encoded again.
        progress: called after each slice of a volume with the number of slices done and the total.

    Raises:
        InputError: an unknown rule for overlaps; when segmenting: the network returns values that are not finite.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        overlap: str = "logit",
        keep_masks: bool = False,
        keep_logits: bool = False,
        boxes_at_once: int = 8,
        slices_at_once: int = 4,
        slices_kept: int = 64,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.backend, self.overlap = backend, check_overlap(overlap)
        self._kept = {"keep_masks": keep_masks, "keep_logits": keep_logits}
        self.boxes_at_once, self.slices_at_once, self.slices_kept = boxes_at_once, slices_at_once, slices_kept
        self._progress = progress
        self._seconds: dict[str, float] = {}

    def segment_picture(
        self,
        image: np.ndarray,
        boxes: np.ndarray,
        modality: str | None = None,
        *,
        corrections: Sequence[Corrections] | None = None,
    ) -> Segmentation:
        """Segment a picture.

        Args:
            image: HxW or HxWx3 uint8.
            boxes: Nx4 x_min y_min x_max y_max, native pixels, checked by ``check_boxes``; NaN for an object without.
            modality: name; None: predicted by the network's classifier, if it has one.
            corrections: clicks and mask of each object.
        """
        self._seconds = dict.fromkeys(("encode", "decode", "resize"), 0.0)
        boxes = np.asarray(boxes, np.float64)
        (seen,) = self._encode([image])
        boxed = np.isfinite(boxes).all(axis=1)
        whole = np.array([[0.0, 0.0, image.shape[1] - 1.0, image.shape[0] - 1.0]])
        modality = self._prompted(modality) or self._recognise(seen, boxes[boxed] if boxed.any() else whole)
        canvas = Canvas(image.shape[:2], len(boxes), self.overlap, **self._kept)
        ious, modalities = [0.0] * len(boxes), [None] * len(boxes)
        for k, mask in self._all(seen, boxes, modality, corrections):
            canvas.paint(k + 1, mask.logits)
            ious[k], modalities[k] = mask.iou, mask.modality
        return self._result(canvas, ious, modality, modalities)

    def _all(
        self, seen: _Slice, boxes: np.ndarray, modality: str | None, corrections: Sequence[Corrections] | None
    ) -> Iterator[tuple[int, _Mask]]:
        """Decode the objects of one slice: boxes together, what has clicks or a mask one by one."""
        said = [bool(given) for given in corrections] if corrections else [False] * len(boxes)
        alone = np.flatnonzero(~np.array(said))
        for n, mask in self._decode(seen, boxes[alone], modality) if len(alone) else ():
            yield int(alone[n]), mask
        for k in np.flatnonzero(said).tolist():
            yield k, self._corrected(seen, boxes[k], corrections[k], modality)

    def _corrected(self, seen: _Slice, box: np.ndarray, corrections: Corrections, modality: str | None) -> _Mask:
        """Decode one object (box of 4 numbers, NaN for none) with its clicks and mask."""
        given = box if np.isfinite(box).all() else None

        def decode(prompts: Prompts, answer: Decoded | None) -> Decoded:
            features = None if given is None else self.backend.clip_features(seen.image, box[None])
            prompts = prompts._replace(modality=modality_index(modality), image_features=features)
            with self._timed("decode"):
                return _finite(self.backend.decode(seen.embedding, prompts, answer))

        correction = Correction(seen.image, seen.frame, crop_size=self.backend.crop_size, decode=decode)
        return self._mask(seen, correction.run(given, corrections), 0)

    def segment_volume(
        self,
        volume: np.ndarray,
        boxes: np.ndarray,
        modality: str | None = None,
        *,
        follow: bool = True,
        corrections: Sequence[Corrections] | None = None,
    ) -> Segmentation:
        """Segment a volume slice by slice, from the middle of each box outwards to its first and last slice.

        The middle slice is prompted with the box itself. Each next slice is prompted with the box of the mask before
        it, slightly enlarged, within the given box. Then each slice is prompted once more with the box of its own new
        mask, since a box that holds an object through all slices is loose on most of them. After an empty mask, or a
        mask outside the given box, the last box is kept. All boxes of a slice are decoded together, upwards first, then
        downwards, so that each slice is encoded once (twice if more than ``slices_kept`` slices lie in the upper part
        of one box and the lower part of another).

        Args:
            volume: DxHxW or DxHxWx3 uint8.
            boxes: Nx6 x_min y_min z_min x_max y_max z_max, native voxels, checked by ``check_boxes``.
            modality: as for a picture; None: predicted on the middle slice of the largest box.
            follow: False prompts every slice with the given box.
            corrections: clicks of each object; those on a slice correct its mask there, and so also prompt the next.
        """
        self._seconds = dict.fromkeys(("encode", "decode", "resize"), 0.0)
        boxes = np.asarray(boxes, np.float64)
        first, last = (np.rint(boxes[:, i]).astype(int) for i in (2, 5))
        middle = (first + last) // 2 if follow else first
        tracks = [_Track(given, given, given) for given in boxes[:, [0, 1, 3, 4]]]
        canvas = Canvas(volume.shape[:3], len(boxes), self.overlap, **self._kept)
        upwards, downwards = _plan(middle, last), _plan(first, middle - 1)[::-1]
        kept: dict[int, _Slice] = {}
        modality = self._prompted(modality)
        if modality is None and self.backend.uses_modality:
            z = middle[_largest_first(boxes)[0]]
            (kept[z],) = self._encode([volume[z]])
            modality = self._recognise(kept[z], boxes[middle == z][:, [0, 1, 3, 4]])
        again, done = {z for z, _ in downwards}, 0
        for visits in (upwards, downwards):
            for z, seen, members in self._visit(volume, visits, kept, again if visits is upwards else set()):
                prompts = np.stack([tracks[k].current for k in members])
                if follow:
                    prompts = self._tightened(seen, prompts, [tracks[k].given for k in members], modality)
                clicks = [corrections[k].on_slice(z) for k in members] if corrections else None
                for n, mask in self._all(seen, prompts, modality, clicks):
                    k = members[n]
                    canvas.paint(k + 1, mask.logits, z)
                    _advance(tracks[k], mask, seen.frame, follow)
                    if z == middle[k]:
                        tracks[k].start = tracks[k].current
                if visits is downwards or z not in again:
                    canvas.finish(z)
                done += 1
                if self._progress is not None:
                    self._progress(done, len(upwards) + len(downwards))
            for track in tracks:
                track.current = track.start  # downwards each object starts from its middle slice again
        modalities = [np.mean(track.modality, axis=0) if track.modality else None for track in tracks]
        return self._result(canvas, [np.mean(track.iou) for track in tracks], modality, modalities)

    def _visit(
        self, volume: np.ndarray, visits: Sequence[tuple[int, list[int]]], kept: dict[int, _Slice], again: set[int]
    ) -> Iterator[tuple[int, _Slice, list[int]]]:
        """Yield (z, encoded slice, boxes) in order; encode several slices at once and keep those needed ``again``."""
        for n, (z, members) in enumerate(visits):
            if z not in kept:
                ahead = [other for other, _ in visits[n:] if other not in kept][: self.slices_at_once]
                kept.update(zip(ahead, self._encode([volume[other] for other in ahead]), strict=True))
            yield z, kept[z], members
            if z not in again:
                del kept[z]
            elif len(kept) > self.slices_kept + self.slices_at_once:
                del kept[min(kept)]  # the downward pass needs the lowest slice last

    def _prompted(self, modality: str | None) -> str | None:
        return modality if self.backend.uses_modality else None

    def _recognise(self, seen: _Slice, boxes: np.ndarray) -> str | None:
        """Return the modality predicted by the network; None if it has no classifier."""
        if not self.backend.uses_modality:
            return None
        logits = self._run(seen, boxes[_largest_first(boxes)[:_VOTES]], None).modality_logits
        return MODALITIES[int(_softmax(logits).mean(axis=0).argmax())]

    def _encode(self, images: Sequence[np.ndarray]) -> list[_Slice]:
        """Encode pictures or slices, HxW or HxWx3 uint8."""
        with self._timed("resize"):
            channels = [np.broadcast_to(i, (3, *i.shape)) if i.ndim == 2 else i.transpose(2, 0, 1) for i in images]
            frames = [Frame(*image.shape[1:]) for image in channels]
            framed = np.stack([frame.image_to_frame(image) for frame, image in zip(frames, channels, strict=True)])
        with self._timed("encode"):
            embeddings = self.backend.encode(framed)
        return [_Slice(*parts) for parts in zip(channels, frames, embeddings, strict=True)]

    def _tightened(
        self, seen: _Slice, boxes: np.ndarray, given: Sequence[np.ndarray], modality: str | None
    ) -> np.ndarray:
        """Replace boxes (Nx4, native) of one slice by those of their masks, inside the N given ones."""
        tight = boxes.copy()
        for n, mask in self._decode(seen, boxes, modality):
            own = _box_of(mask, SAME_SLICE_MARGIN, seen.frame, given[n])
            if own is not None:
                tight[n] = own
        return tight

    def _decode(self, seen: _Slice, boxes: np.ndarray, modality: str | None) -> Iterator[tuple[int, _Mask]]:
        """Decode the boxes (Nx4, native) of one slice and yield (number of the box, mask).

        One mask at a time, since masks of native size may be large. The largest box first, so that the same boxes are
        computed together in whichever order they are given, and the results are equal to the last bit.
        """
        order = _largest_first(boxes)
        for start in range(0, len(boxes), self.boxes_at_once):
            numbers = order[start : start + self.boxes_at_once]
            decoded = self._run(seen, boxes[numbers], modality)
            for i, k in enumerate(numbers.tolist()):
                yield k, self._mask(seen, decoded, i)

    def _mask(self, seen: _Slice, decoded: Decoded, i: int) -> _Mask:
        """Return result i at native size."""
        with self._timed("resize"):
            (logits,) = seen.frame.logits_to_native(decoded.mask_logits[i : i + 1])
        modality = None if decoded.modality_logits is None else decoded.modality_logits[i]
        return _Mask(logits, float(decoded.iou[i]), modality)

    def _run(self, seen: _Slice, boxes: np.ndarray, modality: str | None) -> Decoded:
        """Decode some boxes (Nx4, native) of one slice: logits Nx256x256."""
        with self._timed("resize"):
            crops = np.stack([crop_box(seen.image, box, self.backend.crop_size) for box in boxes])
            framed = seen.frame.boxes_to_frame(boxes).astype(np.float32)
        with self._timed("decode"):
            prompts = Prompts(
                boxes=framed,
                crops=crops,
                crop_boxes=framed,
                modality=modality_index(modality),
                image_features=self.backend.clip_features(seen.image, boxes),
            )
            return _finite(self.backend.decode(seen.embedding, prompts))

    def _result(
        self, canvas: Canvas, ious: list[float], modality: str | None, modalities: list[np.ndarray | None]
    ) -> Segmentation:
        return Segmentation(
            labels=canvas.labels,
            masks=canvas.masks,
            iou=np.array(ious),
            modality=modality,
            probabilities=None if modalities[0] is None else _softmax(np.stack(modalities)),
            seconds=dict(self._seconds),
        )

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._seconds[stage] += time.perf_counter() - start


def _finite(decoded: Decoded) -> Decoded:
    if not (np.isfinite(decoded.mask_logits).all() and np.isfinite(decoded.iou).all()):
        raise InputError("network", "mask logits or IoU", "NaN or infinite values", "finite weights")
    return decoded


def _advance(track: _Track, mask: _Mask, frame: Frame, follow: bool) -> None:
    """Note the result of a slice, and set the box that prompts the next one."""
    track.iou.append(mask.iou)
    if mask.modality is not None:
        track.modality.append(mask.modality)
    following = _box_of(mask, NEXT_SLICE_MARGIN, frame, track.given) if follow else None
    if following is not None:
        track.current = following


def _box_of(mask: _Mask, margin: tuple[int, int], frame: Frame, given: np.ndarray) -> np.ndarray | None:
    """Return the mask's box in native pixels, larger by a margin, inside ``given``; None if there is none."""
    inside = mask.logits > 0
    if not inside.any():
        return None
    outwards = max(margin[0] / frame.scale, margin[1]) * np.array([-1.0, -1.0, 1.0, 1.0])
    grown = tight_boxes(inside[None])[0] + outwards
    low, high = np.maximum(grown[:2], given[:2]), np.minimum(grown[2:], given[2:])
    return np.concatenate([low, high]) if (low < high).all() else None  # the mask may lie outside the given box


def _plan(first: np.ndarray, last: np.ndarray) -> list[tuple[int, list[int]]]:
    """Return [(z, boxes whose range first..last holds z), ...], z ascending, without slices that have no boxes."""
    slices = range(int(first.min()), int(last.max()) + 1)
    plan = [(z, np.flatnonzero((first <= z) & (z <= last)).tolist()) for z in slices]
    return [(z, members) for z, members in plan if members]


def _largest_first(boxes: np.ndarray) -> np.ndarray:
    """Return the indices of the boxes by size, then by position, so that their given order does not matter."""
    low, high = np.split(boxes, 2, axis=1)
    return np.lexsort([*boxes.T, -np.prod(high - low + 1, axis=1)])


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)
