"""Closed-form shapes and textures for the phantoms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

#: (k, a, p): an outline swings by ``a cos(k t + p)`` of its radius around the angle t.
Wave = tuple[int, float, float]


@dataclass(frozen=True)
class Phantom:
    """A computed image with exact masks.

    Attributes:
        image: (Z, H, W) or (Z, H, W, 3).
        label: uint8 (Z, H, W).
        names: label id -> name, or ``{"*": name}`` for an instance map.
        spacing: (z, y, x) in mm of a volume; None for a picture.
    """

    image: np.ndarray
    label: np.ndarray
    names: Mapping[int | str, str]
    spacing: tuple[float, float, float] | None = None


def grid(shape: Sequence[int], spacing: Sequence[float] | None = None) -> list[np.ndarray]:
    """Return open coordinate arrays, one per axis, with 0 in the middle; in pixels, or in mm with a spacing."""
    steps = spacing or (1.0,) * len(shape)
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, steps, strict=True)]
    return list(np.ix_(*axes))


def radius(axes: Sequence[np.ndarray], center: Sequence[float], radii: Sequence[float]) -> np.ndarray:
    """Return the normalised distance of an axis-parallel ellipse or ellipsoid: up to 1 is inside."""
    terms = (((axis - c) / r) ** 2 for axis, c, r in zip(axes, center, radii, strict=True))
    return np.sqrt(sum(terms))


def turned_radius(
    axes: Sequence[np.ndarray], center: Sequence[float], radii: Sequence[float], angle: float
) -> np.ndarray:
    """Return the normalised distance of a 2D ellipse that is turned by ``angle`` (radians)."""
    y, x = axes[0] - center[0], axes[1] - center[1]
    cos, sin = np.cos(angle), np.sin(angle)
    return np.hypot((y * cos - x * sin) / radii[0], (y * sin + x * cos) / radii[1])


def wavy_radius(
    axes: Sequence[np.ndarray],
    center: Sequence[float],
    radii: Sequence[float],
    waves: Sequence[Wave],
) -> np.ndarray:
    """Return the normalised distance of an ellipse whose outline swings by the sum of the waves."""
    y, x = (axes[0] - center[0]) / radii[0], (axes[1] - center[1]) / radii[1]
    t = np.arctan2(y, x)
    outline = 1 + sum(a * np.cos(k * t + p) for k, a, p in waves)
    return np.hypot(y, x) / outline


def random_waves(rng: np.random.Generator, size: float) -> list[Wave]:
    """Draw waves for an irregular outline; ``size`` is the largest swing of each."""
    return [(k, float(rng.uniform(0.3, 1) * size), float(rng.uniform(0, 2 * np.pi))) for k in (2, 3, 5)]


def texture(rng: np.random.Generator, shape: Sequence[int], sigma: float | Sequence[float]) -> np.ndarray:
    """Return smooth noise of mean 0 and standard deviation 1; ``sigma`` (pixels) is its coarseness."""
    noise = gaussian_filter(rng.standard_normal(shape), sigma)
    return (noise - noise.mean()) / noise.std()


def speckle(rng: np.random.Generator, shape: Sequence[int], sigma: float | Sequence[float]) -> np.ndarray:
    """Return multiplicative speckle of mean 1: the envelope (Rayleigh) of smooth complex noise."""
    envelope = np.hypot(texture(rng, shape, sigma), texture(rng, shape, sigma))
    return envelope / envelope.mean()


def colour(grey: np.ndarray, dark: Sequence[float], bright: Sequence[float]) -> np.ndarray:
    """Map HxW values 0..1 to HxWx3 between two RGB colours (0..255)."""
    weight = np.clip(grey, 0, 1)[..., None]
    return (1 - weight) * np.asarray(dark, float) + weight * np.asarray(bright, float)


def picture(image: np.ndarray, label: np.ndarray, names: Mapping[int | str, str]) -> Phantom:
    """Return a 2D phantom from HxW[x3] values (0..255, clipped) and an HxW label map."""
    pixels = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return Phantom(pixels[None], label.astype(np.uint8)[None], names)  # HxW[x3] -> 1xHxW[x3]
