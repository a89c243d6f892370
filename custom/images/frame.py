"""The network's 256 x 256 frame, and how to get there and back.

A native image is scaled so that its longer side is 256 pixels and padded at the right and the bottom, as LiteMedSAM
does. Pixel (x, y) covers [x, x + 1) x [y, y + 1), and boxes hold both their end pixels. Everything here is NumPy and
Pillow, so that training, the bundle and the runtime without PyTorch see the same pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

IMAGE_SIZE = 256


@dataclass(frozen=True)
class Frame:
    """Geometry of one image of a native height and width.

    Example:
        >>> Frame(512, 256).boxes_to_frame(np.array([[0.0, 0.0, 255.0, 511.0]]))
        array([[ -0.25,  -0.25, 127.25, 255.25]])
    """

    height: int
    width: int

    @property
    def scale(self) -> float:
        """Frame pixels per native pixel."""
        return IMAGE_SIZE / max(self.height, self.width)

    @property
    def content(self) -> tuple[int, int]:
        """Height and width of the part of the frame that shows the image; the rest is padding."""
        return max(1, round(self.height * self.scale)), max(1, round(self.width * self.scale))

    def image_to_frame(self, image: np.ndarray) -> np.ndarray:
        """Resize, scale the values to [0, 1] by minimum and maximum, pad: CxHxW -> Cx256x256 float32."""
        height, width = self.content
        small = resize(distinct_channels(image), self.content)
        low, high = small.min(), small.max()
        framed = np.zeros((len(image), IMAGE_SIZE, IMAGE_SIZE), np.float32)
        framed[:, :height, :width] = (small - low) / max(high - low, np.float32(1e-8))  # one channel fills all three
        return framed

    def boxes_to_frame(self, boxes: np.ndarray) -> np.ndarray:
        """Map pixel positions: ...x4 native -> ...x4 in the frame."""
        return (boxes + 0.5) * self.scale - 0.5

    def boxes_to_native(self, boxes: np.ndarray) -> np.ndarray:
        """Map pixel positions: ...x4 in the frame -> ...x4 native."""
        return (boxes + 0.5) / self.scale - 0.5

    def logits_to_native(self, logits: np.ndarray) -> np.ndarray:
        """Cut the padding off and sample bilinearly at the native pixels: Nx256x256 -> NxHxW float32."""
        sampled = logits[:, : self.content[0], : self.content[1]]
        for axis, count in ((1, self.height), (2, self.width)):
            # No anti-aliasing when shrinking: the value of the native pixel counts, not its neighbours'.
            last = sampled.shape[axis] - 1
            place = np.clip((np.arange(count) + 0.5) * (last + 1) / count - 0.5, 0, last)
            low = place.astype(int)
            weight = (place - low).astype(np.float32)[:, None] if axis == 1 else (place - low).astype(np.float32)
            before, step = sampled.take(low, axis), sampled.take(np.minimum(low + 1, last), axis)
            step -= before  # in place, because arrays of native size may be large
            step *= weight
            step += before
            sampled = step
        return sampled.astype(np.float32, copy=False)


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize bilinearly, with anti-aliasing when shrinking: CxHxW -> CxH'xW' float32."""
    resized = np.empty((len(image), *size), np.float32)
    for channel, target in zip(image, resized, strict=True):
        picture = Image.fromarray(np.ascontiguousarray(channel, np.float32))
        target[...] = picture.resize(size[::-1], Image.Resampling.BILINEAR)
    return resized


def crop_box(image: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """Cut the native image inside a box, last row and column included: CxHxW in 0..255 -> CxSxS float32 in [0, 1].

    The box is x_min, y_min, x_max, y_max in native pixels; parts outside the image are omitted.
    """
    height, width = image.shape[-2:]
    x_min, y_min, x_max, y_max = (int(v) for v in np.rint(box))
    x_min, y_min = min(max(x_min, 0), width - 1), min(max(y_min, 0), height - 1)
    inside = image[:, y_min : max(y_max, y_min) + 1, x_min : max(x_max, x_min) + 1]
    return np.broadcast_to(resize(distinct_channels(inside), (size, size)) / 255, (len(image), size, size))


def distinct_channels(image: np.ndarray) -> np.ndarray:
    """Keep one channel of a grey image (all channels equal), and every channel of any other image."""
    grey = image.strides[0] == 0 or all(np.array_equal(image[0], channel) for channel in image[1:])
    return image[:1] if grey else image
