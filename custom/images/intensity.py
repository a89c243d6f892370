"""Convert intensities to uint8 as in the training data (0..255, by window or percentiles)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from custom.errors import InputError

PERCENTILES = (0.5, 99.5)
_CHUNK = 8  # slices scaled at a time, so that a float copy of a whole volume is never held


@dataclass(frozen=True)
class Window:
    """A CT window: ``level`` is its centre and ``width`` its full width, both in HU."""

    level: float
    width: float

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest HU shown."""
        return self.level - self.width / 2, self.level + self.width / 2


WINDOWS = {
    "soft_tissue": Window(40, 400),
    "lung": Window(-600, 1500),
    "bone": Window(400, 1800),
    "brain": Window(40, 80),
}


def parse_window(value: str | Sequence[float] | Window) -> Window:
    """Return the window for a name of ``WINDOWS``, for ``"level,width"``, a pair of numbers or a ``Window``.

    Raises:
        InputError: it is none of these, or the width is not positive.

    Example:
        >>> parse_window("40,350")
        Window(level=40.0, width=350.0)
    """
    if isinstance(value, Window):
        return value
    if isinstance(value, str) and value in WINDOWS:
        return WINDOWS[value]
    parts = value.split(",") if isinstance(value, str) else value
    try:
        level, width = (float(part) for part in parts)
    except (TypeError, ValueError):
        level, width = 0.0, float("nan")
    if not (np.isfinite([level, width]).all() and width > 0):
        allowed = f'{", ".join(WINDOWS)}, or "level,width" in HU with a positive width'
        raise InputError("arguments", "ct_window", repr(value), allowed)
    return Window(level, width)


def to_uint8(
    image: np.ndarray, modality: str, window: Window, source: str, *, suv_max: float | None = None
) -> np.ndarray:
    """Convert an image to uint8 with one or three channels.

    uint8 stays as it is and booleans become 0 and 255. Otherwise CT is clipped to the window, PET to 0 and ``suv_max``
    if that is given. Everything else (MR, PET without ``suv_max``, 16-bit pictures ...) is clipped to the 0.5 and 99.5
    percentiles of the non-zero voxels of the whole volume, or to its lowest and highest value if the percentiles are
    equal. Then it is rescaled to 0..255. NaN is background: it does not count, and becomes 0. An alpha channel is
    dropped; a picture (Z = 1) with three equal channels becomes grey.

    Args:
        image: (Z, H, W) or (Z, H, W, C) with C in 1, 3, 4; any real dtype.
        modality: one of the eleven modalities.
        window: the window for CT.
        source: the file to name in an error.
        suv_max: the uptake of PET that becomes 255, in the unit of the image (SUV).

    Returns:
        uint8 (Z, H, W) or (Z, H, W, 3).

    Raises:
        InputError: another number of channels, a dtype that is not real, infinite values (as float32) or only NaN, or
            a ``suv_max`` that is not a positive number.
    """
    number = isinstance(suv_max, (int, float)) and not isinstance(suv_max, bool)
    if suv_max is not None and not (number and 0 < suv_max < np.inf):
        raise InputError("arguments", "suv_max", repr(suv_max), "a positive number, or None for percentiles")
    image = _channels(image, source)
    if image.dtype == np.uint8:
        return image
    if image.dtype == bool:
        return image.astype(np.uint8) * 255
    if image.dtype.kind not in "iuf":
        raise InputError(source, "image", f"dtype {image.dtype}", "integers or real numbers")
    if image.dtype.kind == "f":
        _check_finite(image, source)
    if modality == "CT":
        low, high = window.bounds
    elif modality == "PET" and suv_max is not None:
        low, high = 0.0, float(suv_max)
    else:
        low, high = _percentiles(image)
    scaled = np.zeros(image.shape, np.uint8)
    if high > low:
        for z in range(0, len(image), _CHUNK):
            part = image[z : z + _CHUNK].astype(np.float64)
            part[np.isnan(part)] = low
            scaled[z : z + _CHUNK] = np.rint((np.clip(part, low, high) - low) * 255 / (high - low))
    return scaled


def _channels(image: np.ndarray, source: str) -> np.ndarray:
    if image.ndim == 3:
        return image
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4):
        raise InputError(source, "image", f"shape {image.shape}", "(Z, H, W) or (Z, H, W, C) with C in 1, 3, 4")
    red, last = image[..., 0], min(image.shape[-1], 3)
    same = all(np.array_equal(red, image[..., c], equal_nan=image.dtype.kind == "f") for c in range(1, last))
    if image.shape[-1] == 1 or (len(image) == 1 and same):
        return red
    return image[..., :3]


def _check_finite(image: np.ndarray, source: str) -> None:
    empty = image.size > 0
    with np.errstate(over="ignore"):
        for part in image:
            if np.isinf(part.astype(np.float32, copy=False)).any():
                raise InputError(source, "image", "infinite values", "finite values, as float32 too, or NaN")
            empty = empty and bool(np.isnan(part).all())
    if empty:
        raise InputError(source, "image", "NaN in every voxel", "finite values")


def _percentiles(image: np.ndarray) -> tuple[float, float]:
    values = image[(image < 0) | (image > 0)]  # NaN is neither
    if values.size and not _holds_differences(values):  # NumPy interpolates between values in their own type
        values = values.astype(np.float64)
    low, high = np.percentile(values, PERCENTILES) if values.size else (0, 0)
    if low == high and image.size:  # nearly constant: only some brighter or darker voxels can be seen
        low, high = np.nanmin(image), np.nanmax(image)
    return float(low), float(high)


def _holds_differences(values: np.ndarray) -> bool:
    limits = np.finfo(values.dtype) if values.dtype.kind == "f" else np.iinfo(values.dtype)
    return float(values.max()) - float(values.min()) <= float(limits.max)
