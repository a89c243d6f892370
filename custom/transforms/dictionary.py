"""MONAI dictionary transforms from a prepared slice to the network's inputs, and back to native masks.

Flips and other moves come first. Everything else (box, crop, frame) is computed from the moved image and masks, so
that they always agree.
"""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from monai.utils import convert_to_tensor

from custom.data.prepared import read_slice
from custom.errors import InputError
from custom.images.frame import Frame, crop_box
from custom.transforms.boxes import tight_boxes
from custom.transforms.masks import masks_to_frame

Item = dict[Hashable, object]


class LoadSliced(MapTransform):
    """Read one slice of memory-mapped arrays: path -> image 3xHxW uint8 (grey repeated), label 1xHxW int32.

    Args:
        keys: paths of arrays, the image (Z, H, W) or (Z, H, W, 3), labels (Z, H, W).
        slice_key: index of the slice.
        image_key: which of the keys is the image.
    """

    def __init__(self, keys: KeysCollection, *, slice_key: str = "slice", image_key: str = "image") -> None:
        super().__init__(keys)
        self.slice_key, self.image_key = slice_key, image_key

    def __call__(self, data: Mapping[Hashable, object]) -> Item:
        """Replace the paths by tensors."""
        item = dict(data)
        for key in self.key_iterator(item):
            plane = read_slice(item[key], int(item[self.slice_key]))
            if key != self.image_key:
                item[key] = torch.from_numpy(plane.astype(np.int32)).unsqueeze(0)  # HxW -> 1xHxW
            elif plane.ndim == 2:
                item[key] = torch.from_numpy(plane).expand(3, -1, -1)  # HxW -> 3xHxW
            else:
                item[key] = torch.from_numpy(plane).permute(2, 0, 1)  # HxWx3 -> 3xHxW
        return item


class PickMasksd(MapTransform):
    """Pick the masks of some labels: 1xHxW of ids -> NxHxW uint8 in {0, 1}.

    Raises:
        InputError: the image has a different size, or a label is not on the slice.
    """

    def __init__(self, keys: KeysCollection, *, ids_key: str = "label_ids", image_key: str = "image") -> None:
        super().__init__(keys)
        self.ids_key, self.image_key = ids_key, image_key

    def __call__(self, data: Mapping[Hashable, object]) -> Item:
        """Replace the label slices by masks."""
        item = dict(data)
        for key in self.key_iterator(item):
            labels, size = item[key], tuple(item[self.image_key].shape[1:])
            if tuple(labels.shape[1:]) != size:
                raise InputError(item["case"], key, f"size {tuple(labels.shape[1:])}", f"the image's, {size}")
            ids = torch.as_tensor(item[self.ids_key], dtype=labels.dtype)
            masks = (labels == ids[:, None, None]).view(torch.uint8)  # 1xHxW, N -> NxHxW
            absent = ids[masks.flatten(1).amax(dim=1) == 0].tolist()
            if absent:
                raise InputError(item["case"], key, f"no pixel of label {absent[0]}", "the labels of its index")
            item[key] = masks
        return item


class Boxd(MapTransform):
    """Make boxes from masks: the tight box, moved outwards and kept inside the image.

    Args:
        keys: masks NxHxW, none of them empty.
        box_key: where the boxes go, Nx4 float in native pixels.
        shift: outward shift of x_min, y_min, x_max, y_max in pixels of the 256 frame; one number for all, or Nx4.
        scale: relative enlargement of the tight box about its centre, 0.1 for a tenth wider and higher; one number for
            all, or Nx4, where each side moves by half of its own value.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        box_key: str = "boxes",
        shift: float | torch.Tensor = 0.0,
        scale: float | torch.Tensor = 0.0,
    ) -> None:
        super().__init__(keys)
        self.box_key, self.shift, self.scale = box_key, shift, scale

    def __call__(self, data: Mapping[Hashable, object]) -> Item:
        """Add the boxes."""
        item = dict(data)
        for key in self.key_iterator(item):
            masks = convert_to_tensor(item[key], track_meta=False)
            height, width = masks.shape[1:]
            boxes, outwards = tight_boxes(masks), torch.tensor([-1.0, -1.0, 1.0, 1.0])
            sizes = (boxes[:, 2:] - boxes[:, :2] + 1).repeat(1, 2)  # Nx2 -> Nx4, both end pixels are inside
            moved = boxes + outwards * self.shift / Frame(height, width).scale + outwards * self.scale / 2 * sizes
            last = torch.tensor([width, height, width, height]) - 1.0
            item[self.box_key] = moved.clamp(min=torch.zeros(4), max=last)
        return item


class RandBoxd(Randomizable, MapTransform):
    """``Boxd`` with each side moved outwards by 0 to ``max_shift`` pixels of the 256 frame.

    Args:
        keys: masks NxHxW, none of them empty.
        max_shift: largest shift, in pixels of the 256 frame.
        max_scale: above 0, each side also moves by a share of the box: ``scale`` of ``Boxd``, drawn uniformly
            from 0 to this value for each side.
        loose_prob: share of loose boxes, drawn carelessly: their sides move by 0 to ``loose_shift`` pixels.
        loose_shift: largest shift of such a box, in pixels of the 256 frame.
        box_key: where the boxes go.
        seeded_by: keys whose values fix the draw (so that the boxes of an evaluation are the same in every run);
            none for a random draw.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        max_shift: int = 5,
        max_scale: float = 0.0,
        loose_prob: float = 0.0,
        loose_shift: int = 20,
        box_key: str = "boxes",
        seeded_by: Sequence[str] = (),
    ) -> None:
        MapTransform.__init__(self, keys)
        self.max_shift, self.max_scale = max_shift, max_scale
        self.loose_prob, self.loose_shift = loose_prob, loose_shift
        self.box_key, self.seeded_by = box_key, tuple(seeded_by)

    def randomize(self, data: int) -> dict[str, torch.Tensor]:
        """Draw the shifts of N boxes, Nx4, and their enlargements, Nx4, if there are any."""
        shift = self.R.randint(0, self.max_shift + 1, size=(data, 4))
        if self.loose_prob:
            loose = self.R.uniform(size=(data, 1)) < self.loose_prob
            shift = np.where(loose, self.R.randint(0, self.loose_shift + 1, size=(data, 4)), shift)
        drawn = {"shift": torch.from_numpy(shift).float()}
        if self.max_scale:
            drawn["scale"] = torch.from_numpy(self.R.uniform(0, self.max_scale, size=(data, 4))).float()
        return drawn

    def __call__(self, data: Mapping[Hashable, object]) -> Item:
        """Draw the shifts and add the boxes."""
        item = dict(data)
        if self.seeded_by:
            name = "/".join(str(item[key]) for key in self.seeded_by)
            self.R = np.random.RandomState(zlib.crc32(name.encode()))
        for key in self.key_iterator(item):
            item = Boxd(key, box_key=self.box_key, **self.randomize(len(item[key])))(item)
        return item


class CropBoxesd(MapTransform):
    """Cut the native image inside each box: image 3xHxW uint8 -> crops Nx3xSxS in [0, 1].

    Args:
        keys: native image.
        crops: name of the crops -> their side S, e.g. ``{"crop": 64, "clip_crop": 224}``.
        box_key: boxes Nx4 in native pixels.
    """

    def __init__(self, keys: KeysCollection, *, crops: Mapping[str, int], box_key: str = "boxes") -> None:
        super().__init__(keys)
        self.crops, self.box_key = dict(crops), box_key

    def __call__(self, data: Mapping[Hashable, object]) -> Item:
        """Add the crops."""
        item = dict(data)
        for key in self.key_iterator(item):
            image = convert_to_tensor(item[key], track_meta=False)
            for name, size in self.crops.items():
                crops = [crop_box(image.numpy(), box, size) for box in item[self.box_key].numpy()]
                item[name] = torch.from_numpy(np.stack(crops))
        return item


class ToFramed(MapTransform):
    """Bring image, masks and boxes into the network's 256 x 256 frame (see ``Frame``).

    Args:
        keys: the image.
        mask_keys: masks to transform as well.
        box_key: boxes to transform as well.
    """

    def __init__(self, keys: KeysCollection, *, mask_keys: Sequence[str] = (), box_key: str = "boxes") -> None:
        super().__init__(keys)
        self.mask_keys, self.box_key = tuple(mask_keys), box_key

    def __call__(self, data: Mapping[Hashable, object]) -> Item:
        """Replace image, masks and boxes."""
        item = dict(data)
        for key in self.key_iterator(item):
            image = convert_to_tensor(item[key], track_meta=False)
            frame = Frame(*image.shape[1:])
            item[key] = torch.from_numpy(frame.image_to_frame(image.numpy()))
            item[self.box_key] = frame.boxes_to_frame(item[self.box_key])
            for mask_key in self.mask_keys:
                item[mask_key] = masks_to_frame(convert_to_tensor(item[mask_key], track_meta=False), frame)
        return item


class RestoreMasksd(MapTransform):
    """Bring predicted logits back to native size, and collect what the metrics need under one key.

    Args:
        keys: logits Nx256x256.
        label_key: native masks NxHxW.
        result_key: receives {"case", "slice", "modality", "dimension", "spacing", "pred", "label"}.
    """

    def __init__(self, keys: KeysCollection, *, label_key: str = "label", result_key: str = "result") -> None:
        super().__init__(keys)
        self.label_key, self.result_key = label_key, result_key

    def __call__(self, data: Mapping[Hashable, object]) -> Item:
        """Add the result."""
        item = dict(data)
        for key in self.key_iterator(item):
            label = item[self.label_key].bool().cpu()
            logits = Frame(*label.shape[1:]).logits_to_native(item[key].float().cpu().numpy())
            item[self.result_key] = {
                "case": item["case"],
                "slice": int(item["slice"]),
                "modality": item["modality"],
                "dimension": int(item["dimension"]),
                "spacing": [float(s) for s in item["spacing"]],
                "pred": torch.from_numpy(logits > 0),
                "label": label,
            }
        return item
