"""The predicted IoU of each image: where it is lowest, a label helps most."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from custom.errors import InputError

logger = logging.getLogger(__name__)


class PredictedIoU:
    """The predicted IoU of images, stored until the weights change.

    Args:
        estimate: image id -> predicted IoU, for an image that has not been segmented yet.
        budget: largest number of images to estimate before an answer; the others follow the next time.
    """

    def __init__(self, estimate: Callable[[str], float], *, budget: int = 16) -> None:
        self.estimate, self.budget = estimate, budget
        self._known: dict[str, float] = {}
        self._weights: str | None = None

    def note(self, image: str, iou: float, weights: str) -> None:
        """Store the predicted IoU of an image's last masks, and the digest of the weights that made them."""
        self.use(weights)
        self._known[image] = iou

    def use(self, weights: str) -> None:
        """Drop the predictions of other weights."""
        if weights != self._weights:
            self._known.clear()
            self._weights = weights

    def lowest(self, images: Sequence[str]) -> tuple[str, float] | None:
        """Return the image with the lowest predicted IoU, the first of equals, and that IoU.

        Images that cannot be read are omitted. None if no image remains.
        """
        left = self.budget
        for image in images:
            if image in self._known or not left:
                continue
            left -= 1
            try:
                self._known[image] = self.estimate(image)
            except InputError as error:
                logger.warning("left out: %s", error)
                self._known[image] = float("inf")
        scored = [(self._known[image], n) for n, image in enumerate(images) if image in self._known]
        iou, n = min(scored, default=(float("inf"), 0))
        return None if iou == float("inf") else (images[n], iou)
