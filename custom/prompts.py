"""Everything a user can say about an object, in one type that all layers pass on: ``Prompts``.

Absent is None; within a batch, where one object has what another lacks, it is a negative number: a box of -1, a point
label of -1, a modality of -1. A mask is absent where all its values are zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

#: Values of ``Prompts.point_labels``.
POSITIVE, NEGATIVE, NO_POINT = 1, 0, -1
#: All four numbers of a box that an object does not have.
NO_BOX = -1.0


class Prompts(NamedTuple):
    """Prompts of N objects on each of B images; arrays or tensors in the 256 frame.

    ``...`` is BxN in the network's methods, N in those of a ``Backend`` (one image), and R = B * N inside the network.

    Attributes:
        boxes: ...x4, x_min y_min x_max y_max, both ends inside; ``NO_BOX`` where an object has none.
        points: ...xPx2, x y of clicks, padded to the largest number of clicks of an object.
        point_labels: ...xP: ``POSITIVE``, ``NEGATIVE``, or ``NO_POINT`` for padding.
        masks: ...x256x256, logits of the mask to correct; zeros where there is none.
        crops: ...x3xSxS in [0, 1], the native image inside the box; of an object without a box, inside ``crop_boxes``.
        crop_boxes: ...x4, where the crops were cut; ``boxes`` by default.
        content: ...xCx64x64, the dense content prompt, where it was computed before; by default it is computed from
            the crops.
        views: ...x3xVxV in [0, 1], the native image around the object, where its mask is corrected.
        view_boxes: ...x4, where the views were cut.
        modality: index into ``custom.modalities.MODALITIES``, one for each image; negative for unknown.
        image_features: ...xF, CLIP's features of the crops.
        text_features: ...xF, CLIP's features of the modality's text.
    """

    boxes: Any = None
    points: Any = None
    point_labels: Any = None
    masks: Any = None
    crops: Any = None
    crop_boxes: Any = None
    content: Any = None
    views: Any = None
    view_boxes: Any = None
    modality: Any = None
    image_features: Any = None
    text_features: Any = None

    @property
    def correcting(self) -> bool:
        """Whether there is something to correct a mask with: clicks or a mask."""
        return self.points is not None or self.masks is not None

    def without_corrections(self) -> Prompts:
        """Leave the first click to R objects without a box, and no mask: the rest enters the mask correction."""
        boxless = self.boxes[:, 2] <= NO_BOX
        if self.points is None or not boxless.any():
            return self._replace(points=None, point_labels=None, masks=None)
        boxless = boxless[:, None]
        labels = boxless * self.point_labels[:, :1] + ~boxless * NO_POINT  # for arrays and tensors
        return self._replace(points=self.points[:, :1], point_labels=labels, masks=None)

    def map(self, function: Callable[[Any], Any]) -> Prompts:
        """Apply a function to each field that is given."""
        return Prompts(*(None if value is None else function(value) for value in self))
