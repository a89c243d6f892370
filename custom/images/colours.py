"""The colours of objects, the same on overlays and in mask files."""

from __future__ import annotations

import numpy as np

_COLOURS = np.array(
    [[64, 255, 64], [80, 140, 255], [255, 64, 64], [255, 200, 0], [230, 80, 230], [0, 220, 220]], np.uint8
)


def colour_of(value: int) -> np.ndarray:
    """Return the colour of a label (from 1 up), R, G, B as uint8; colours repeat after the sixth."""
    return _COLOURS[(value - 1) % len(_COLOURS)]


def colour_table() -> np.ndarray:
    """Return the colours of the labels 0 to 255, 256x3 uint8: black for 0, else ``colour_of``."""
    table = _COLOURS[np.arange(-1, 255) % len(_COLOURS)]
    table[0] = 0
    return table
