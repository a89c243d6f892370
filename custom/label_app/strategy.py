"""Active learning: which image to label next."""

from __future__ import annotations

from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy

from custom.label_app.scores import PredictedIoU
from custom.label_app.weights import Weights


class LowestPredictedIoU(Strategy):
    """Proposes the image without a final label whose masks have the lowest predicted IoU.

    For a segmented image, the boxes of the last request count; for any other, a box around its whole middle slice,
    which is a rough guess.
    """

    def __init__(self, scores: PredictedIoU, weights: Weights) -> None:
        super().__init__("The image with the lowest predicted IoU")
        self.scores, self.weights = scores, weights

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Return the id and predicted IoU of the next image, or None if all are labelled."""
        self.scores.use(self.weights.current().facts["digest"])
        found = self.scores.lowest(datastore.get_unlabeled_images())
        return None if found is None else {"id": found[0], "predicted_iou": round(found[1], 4)}
