"""Crops and views out of the network's own frame, where the native image is not at hand."""

from __future__ import annotations

import numpy as np
import torch
from torchvision.ops import roi_align

from custom.clicks import VIEW_MARGIN, VIEW_SIZE, box_around, found_box, view_boxes
from custom.images.frame import IMAGE_SIZE
from custom.prompts import NO_BOX, NO_POINT, Prompts


def crop_frame(image: torch.Tensor, boxes: torch.Tensor, size: int) -> torch.Tensor:
    """Cut boxes BxNx4 out of the network's own frame Bx3x256x256: BxNx3xSxS. A crop of the native image is sharper."""
    edges = boxes.to(image.dtype) + boxes.new_tensor([0, 0, 1, 1])  # both end pixels are inside the box
    crops = roi_align(image, list(edges), output_size=size, aligned=True)
    return crops.unflatten(0, boxes.shape[:2])  # Rx3xSxS -> BxNx3xSxS


def view_frame(
    image: torch.Tensor,
    prompts: Prompts,
    mask_logits: torch.Tensor,
    *,
    shown: torch.Tensor | None = None,
    margin: float | np.ndarray = VIEW_MARGIN,
) -> Prompts:
    """Return prompts with views: of the box or, without one, of the last mask, and of the clicks.

    Args:
        image: Bx3x256x256.
        prompts: of N objects on each image.
        mask_logits: the last masks, BxNx256x256.
        shown: the part of the frame that shows the image, BxNx4; by default all of it.
        margin: share of the longer side that a view adds on every side, one number or BxNx1.
    """
    masks, boxes = (mask_logits > 0).cpu().numpy(), prompts.boxes.cpu().numpy()
    batch, objects = boxes.shape[:2]
    places, margins = np.zeros(boxes.shape), np.broadcast_to(margin, (batch, objects, 1))
    points, labels = _of_objects(prompts.points, 4, objects), _of_objects(prompts.point_labels, 3, objects)
    for b, n in np.ndindex(batch, objects):
        last = [IMAGE_SIZE - 1] * 2 if shown is None else shown[b, n, 2:].round().int().tolist()
        width, height = last[0] + 1, last[1] + 1
        clicks = np.zeros((0, 2)) if points is None else points[b, n][labels[b, n] != NO_POINT].cpu().numpy()
        box = found_box(masks[b, n, :height, :width]) if boxes[b, n, 2] <= NO_BOX else boxes[b, n]
        (places[b, n],) = view_boxes(box_around(box, clicks)[None], (height, width), margins[b, n])
    view_places = torch.from_numpy(places).to(image)
    size = VIEW_SIZE if prompts.views is None else prompts.views.shape[-1]
    return prompts._replace(views=crop_frame(image, view_places, size), view_boxes=view_places)


def _of_objects(value: torch.Tensor | None, ndim: int, n: int) -> torch.Tensor | None:
    """Give one value per image, B... or Bx1..., to each of N objects: BxN...."""
    if value is None:
        return None
    value = value.unsqueeze(1) if value.ndim < ndim else value
    return value.expand(-1, n, *value.shape[2:])
