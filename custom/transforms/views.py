"""Cut views: the image around each object, where its mask is corrected by clicks."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from monai.utils import convert_to_tensor

from custom.clicks import VIEW_MARGIN, VIEW_SIZE, view_boxes
from custom.images.frame import Frame, crop_box


class Viewsd(MapTransform):
    """Cut the native image around each box: image 3xHxW uint8 -> views Nx3xVxV in [0, 1].

    Adds "views"; "view_boxes" Nx4, where they were cut, and "image_boxes" Nx4, what the image covers, both in pixels of
    the 256 frame.

    Args:
        keys: native image.
        size: side V of the views in pixels.
        margin: share of the longer side of a box that its view shows on every side of it, one number or Nx1.
        box_key: boxes Nx4 in native pixels.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        size: int = VIEW_SIZE,
        margin: float | np.ndarray = VIEW_MARGIN,
        box_key: str = "boxes",
    ) -> None:
        super().__init__(keys)
        self.size, self.margin, self.box_key = size, margin, box_key

    def __call__(self, data: Mapping[Hashable, object]) -> dict[Hashable, object]:
        """Add the views."""
        item = dict(data)
        for key in self.key_iterator(item):
            image = convert_to_tensor(item[key], track_meta=False).numpy()
            height, width = image.shape[1:]
            places = view_boxes(item[self.box_key].numpy(), (height, width), self.margin)
            whole = np.tile(np.array([0.0, 0.0, width - 1, height - 1]), (len(places), 1))
            item["views"] = torch.from_numpy(np.stack([crop_box(image, place, self.size) for place in places]))
            for name, boxes in (("view_boxes", places), ("image_boxes", whole)):
                item[name] = torch.from_numpy(Frame(height, width).boxes_to_frame(boxes)).float()
        return item


class RandViewsd(Randomizable, MapTransform):
    """``Viewsd`` with a margin drawn for each view.

    Args:
        keys: native image.
        size: side V of the views in pixels.
        margins: smallest and largest margin.
        box_key: boxes Nx4 in native pixels.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        size: int = VIEW_SIZE,
        margins: tuple[float, float] = (0.1, 0.5),
        box_key: str = "boxes",
    ) -> None:
        MapTransform.__init__(self, keys)
        self.size, self.margins, self.box_key = size, margins, box_key

    def randomize(self, data: int) -> np.ndarray:
        """Draw the margins of N views, Nx1."""
        return self.R.uniform(*self.margins, size=(data, 1))

    def __call__(self, data: Mapping[Hashable, object]) -> dict[Hashable, object]:
        """Draw the margins and add the views."""
        margin = self.randomize(len(data[self.box_key]))
        return Viewsd(self.keys, size=self.size, margin=margin, box_key=self.box_key)(data)
