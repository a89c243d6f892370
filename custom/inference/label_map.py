"""Put the masks of many boxes into one label map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from custom.errors import InputError
from custom.images.boxes import tight_boxes

OVERLAPS = ("logit", "smaller", "last")


def check_overlap(overlap: object) -> str:
    """Return a rule for overlaps, checked.

    Raises:
        InputError: it is not one of ``OVERLAPS``.
    """
    if overlap not in OVERLAPS:
        raise InputError("arguments", "overlap", repr(overlap), ", ".join(OVERLAPS))
    return overlap


class BoxMasks(Sequence):
    """The masks of N boxes, each made when it is accessed: only their tight boxes are stored.

    Example:
        >>> masks = BoxMasks((2, 3), 2)
        >>> masks.put(1, ..., np.s_[0:1, 1:3], np.array([[True, True]]))
        >>> len(masks), masks[1].tolist()
        (2, [[False, True, True], [False, False, False]])
    """

    def __init__(self, shape: tuple[int, ...], boxes: int) -> None:
        self.shape = shape
        self._parts: list[list[tuple]] = [[] for _ in range(boxes)]

    def put(
        self, k: int, place: object, part: tuple[slice, slice], mask: np.ndarray, logits: np.ndarray | None = None
    ) -> None:
        """Keep the mask of box k (from 0) on a slice; ``place`` indexes the slice, ``part`` rows and columns."""
        self._parts[k].append((place, part, mask, logits))

    def slices(self, k: int) -> list[int | None]:
        """Return the slices on which box k has a mask; that of a picture is None."""
        return [None if place is ... else place for place, *_ in self._parts[k]]

    def logits(self, k: int, z: int | None) -> np.ndarray:
        """Return the logits of box k on a slice that has a mask, HxW float32, -inf outside its tight box.

        Only for masks that a ``Canvas`` with ``keep_logits`` has put here.
        """
        whole = np.full(self.shape[-2:], -np.inf, np.float32)
        for place, part, _, logits in self._parts[k]:
            if z is None or place == z:
                whole[part] = logits
        return whole

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, k: int) -> np.ndarray:
        """Return the mask of box k, from 0: bool of the image's size."""
        whole = np.zeros(self.shape, bool)
        for place, part, mask, _ in self._parts[k]:
            whole[place][part] = mask
        return whole

    def area(self, k: int) -> int:
        """Return the number of pixels of mask k, from 0."""
        return sum(int(np.count_nonzero(mask)) for _, _, mask, _ in self._parts[k])


class Canvas:
    """A label map that masks are painted onto, with a rule for pixels covered by several.

    Args:
        shape: HxW or DxHxW.
        boxes: number of boxes; their values are 1..boxes.
        overlap: "logit", the mask with the largest logit keeps the pixel; "smaller", the mask with fewer pixels on the
            slice; "last", the box with the highest number. A tie goes to the box with the lower number.
        keep_masks: also keep each box's own mask.
        keep_logits: with the logits inside its tight box, from which ``custom.inference.joining`` joins masks.

    Raises:
        InputError: an unknown rule.

    Attributes:
        labels: uint8 or uint16, of the given shape.
        masks: each box's own mask, or None.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        boxes: int,
        overlap: str = "logit",
        keep_masks: bool = False,
        keep_logits: bool = False,
    ) -> None:
        self.keep_logits = keep_logits
        self.labels = np.zeros(shape, np.uint8 if boxes <= np.iinfo(np.uint8).max else np.uint16)
        self.masks = BoxMasks(shape, boxes) if keep_masks else None
        self.overlap = check_overlap(overlap)
        self._best: dict[int | None, np.ndarray] = {}  # of the unfinished slices

    def paint(self, value: int, logits: np.ndarray, z: int | None = None) -> None:
        """Paint one mask, as logits HxW, onto the picture or onto slice z."""
        whole = logits > 0
        if not whole.any():
            return
        x_min, y_min, x_max, y_max = tight_boxes(whole[None])[0].astype(int)
        part = np.s_[y_min : y_max + 1, x_min : x_max + 1]
        mask, place = whole[part], ... if z is None else z
        if self.masks is not None:
            kept = logits[part].astype(np.float32) if self.keep_logits else None
            self.masks.put(value - 1, place, part, mask.copy(), kept)  # a view would keep the whole slice
        if z not in self._best:
            self._best[z] = np.full(whole.shape, -np.inf, np.float32)
        best, labels = self._best[z][part], self.labels[place][part]
        rank = self._rank(value, logits[part], mask)
        wins = mask & ((rank > best) | ((rank == best) & (value < labels)))
        labels[wins], best[wins] = value, rank[wins]

    def finish(self, z: int) -> None:
        """Free what is only needed while masks are painted onto slice z."""
        self._best.pop(z, None)

    def _rank(self, value: int, logits: np.ndarray, mask: np.ndarray) -> np.ndarray:
        if self.overlap == "logit":
            return logits.astype(np.float32, copy=False)
        rank = float(value) if self.overlap == "last" else -float(mask.sum())
        return np.full(mask.shape, rank, np.float32)
