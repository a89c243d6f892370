"""Clicks and masks of one object, and how its mask follows from them, one click after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from custom.clicks import VIEW_SIZE, box_around, found_box, view_boxes
from custom.images.boxes import tight_boxes
from custom.images.frame import Frame, crop_box, resize
from custom.inference.backend import Decoded
from custom.prompts import NO_BOX, NO_POINT, Prompts

#: Logit of the pixels of a mask that a user gives.
_CERTAIN = 10.0
#: Runs the network on one object of one image: prompts in the frame, its box or None, and the answer to the box.
Decode = Callable[[Prompts, "Decoded | None"], Decoded]


@dataclass(frozen=True, kw_only=True, eq=False)
class Corrections:
    """What is said about an object beside its box, in pixels of the image's array.

    Attributes:
        points: clicks in the order they were made, Px2 x y, in a volume Px3 x y z.
        labels: P, 1 on the object and 0 beside it.
        mask: mask to correct, HxW bool, or None.
    """

    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    mask: np.ndarray | None = None

    def __bool__(self) -> bool:
        return len(self.points) > 0 or self.mask is not None

    def on_slice(self, z: int) -> Corrections:
        """Return the clicks on a slice of a volume, Px2."""
        here = np.rint(self.points[:, 2]) == z if len(self.points) else np.zeros(0, bool)
        return Corrections(points=self.points[here][:, :2], labels=self.labels[here])


class Correction:
    """Answers the prompts of one object on one image.

    The mask after k clicks follows from the mask after k - 1 and all k clicks, so that the result does not depend on
    whether they came one by one or together.

    Args:
        image: native, CxHxW uint8.
        frame: its frame.
        crop_size: side of the crops.
        decode: runs the network.
    """

    def __init__(self, image: np.ndarray, frame: Frame, *, crop_size: int, decode: Decode) -> None:
        self.image, self.frame, self.crop_size, self.decode = image, frame, crop_size, decode

    def run(self, box: np.ndarray | None, corrections: Corrections) -> Decoded:
        """Return the result for the last click.

        Args:
            box: 4 numbers in native pixels; None if there is only a click or a mask.
            corrections: clicks Px2 and mask of the object.
        """
        masks = None
        if corrections.mask is not None:
            masks = self._framed(corrections.mask)
            if box is None and corrections.mask.any():
                box = tight_boxes(corrections.mask[None])[0]
        prompts = self._prompts(box)
        answer = self.decode(prompts if box is not None else self._with_clicks(prompts, corrections, 1), None)
        decoded = answer if masks is None else answer._replace(mask_logits=masks)
        count = len(corrections.points)
        for k in range(1, count + 1) if count else (0,) if masks is not None else ():
            clicked = self._with_clicks(prompts, corrections, k)
            view = self._view(box, decoded.mask_logits, corrections.points[:k])
            decoded = self.decode(clicked._replace(masks=decoded.mask_logits, **view), answer)
        return decoded

    def _with_clicks(self, prompts: Prompts, corrections: Corrections, count: int) -> Prompts:
        """Add the first clicks."""
        points, labels = corrections.points[:count], corrections.labels[:count]
        if not len(points):
            points, labels = np.zeros((1, 2)), np.array([NO_POINT])
        framed = (points + 0.5) * self.frame.scale - 0.5
        return prompts._replace(points=framed[None].astype(np.float32), point_labels=np.asarray(labels, np.int64)[None])

    def _view(self, box: np.ndarray | None, mask_logits: np.ndarray, points: np.ndarray) -> dict[str, np.ndarray]:
        """Return the view of the box or, without one, of the last mask (1x256x256), and of clicks."""
        if box is None:
            height, width = self.frame.content
            box = self.frame.boxes_to_native(found_box(mask_logits[0, :height, :width] > 0))
        (view,) = view_boxes(box_around(box, points)[None], self.image.shape[1:])
        framed = self.frame.boxes_to_frame(view[None]).astype(np.float32)
        return {"views": crop_box(self.image, view, VIEW_SIZE)[None], "view_boxes": framed}

    def _prompts(self, box: np.ndarray | None) -> Prompts:
        """Return the box (4 numbers, native pixels) and its content; without one the content is the whole image."""
        height, width = self.image.shape[1:]
        content = np.array([0.0, 0.0, width - 1.0, height - 1.0]) if box is None else box
        place = self.frame.boxes_to_frame(content[None]).astype(np.float32)
        boxes = np.full((1, 4), NO_BOX, np.float32) if box is None else place
        return Prompts(boxes=boxes, crops=crop_box(self.image, content, self.crop_size)[None], crop_boxes=place)

    def _framed(self, mask: np.ndarray) -> np.ndarray:
        """Return a mask as logits in the frame, HxW bool -> 1x256x256."""
        height, width = self.frame.content
        logits = np.full((1, 256, 256), -_CERTAIN, np.float32)
        logits[:, :height, :width] = (resize(mask[None].astype(np.uint8), self.frame.content) * 2 - 1) * _CERTAIN
        return logits
