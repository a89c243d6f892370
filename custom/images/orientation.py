"""Turn pictures upright, as viewers show them."""

from __future__ import annotations

from typing import Any

import numpy as np

#: The tag of EXIF and TIFF that says how a picture is stored.
ORIENTATION_TAG = 274


def upright(array: np.ndarray, orientation: object) -> tuple[np.ndarray, dict[str, Any]]:
    """Turn a stored picture according to its orientation tag.

    Args:
        array: (Z, H, W) or (Z, H, W, C).
        orientation: value of the tag; other values than 2 to 8 change nothing, as in viewers.

    Returns:
        The array, H and W exchanged for 5 to 8, and the note for the report, empty if nothing was turned.
    """
    if orientation not in range(2, 9):
        return array, {}
    if orientation >= 5:
        array = array.swapaxes(1, 2)
    if orientation in (2, 3, 6, 7):
        array = array[:, :, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[:, ::-1]
    return np.ascontiguousarray(array), {"exif_orientation": int(orientation), "upright": True}
