import itertools
import time

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from skimage.draw import disk, ellipse
from skimage.measure import regionprops

from custom.images.measures import longest_diameter


def brute_force(mask, spacing):
    """Compare all pixels of each slice."""
    steps = np.ones(2) if spacing is None else np.array(spacing)[-2:]
    planes = mask if mask.ndim == 3 else mask[None]
    return max(pdist(np.argwhere(plane) * steps).max(initial=0.0) for plane in planes)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("spacing", [None, (0.7, 3.1)])
def test_any_pixels(seed, spacing):
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 25, 2)) < rng.choice([0.02, 0.2, 0.9])
    assert longest_diameter(mask, spacing) == pytest.approx(brute_force(mask, spacing), rel=1e-12)


@pytest.mark.parametrize("spacing", [None, (5.0, 0.7, 0.8), (0.7, 0.8)])
def test_slices_are_measured_alone(spacing):
    mask = np.random.default_rng(0).random((6, 20, 30)) < 0.01
    assert longest_diameter(mask, spacing) == pytest.approx(brute_force(mask, spacing))
    mask[:] = False
    mask[0, 0, 0] = mask[5, 19, 29] = True
    assert longest_diameter(mask, spacing) == 0


@pytest.mark.parametrize("shape", [(4, 5), (0, 5), (3, 4, 5), (0, 4, 5)])
def test_empty(shape):
    assert longest_diameter(np.zeros(shape, bool)) == 0.0


@pytest.mark.parametrize(("pixels", "found"), [([(2, 3)], 0), ([(2, 3), (2, 4)], 0.5), ([(2, 3), (6, 3)], 8)])
def test_few_pixels(pixels, found):
    mask = np.zeros((9, 9), bool)
    mask[tuple(np.transpose(pixels))] = True
    result = longest_diameter(mask, (2, 0.5))
    assert result == found and isinstance(result, float)


@pytest.mark.parametrize("step", itertools.product((0, 1, 2), (-2, -1, 0, 1, 2)))
def test_pixels_on_one_line(step):
    mask = np.zeros((15, 15), bool)
    for n in range(4):
        mask[4 + n * step[0], 7 + n * step[1]] = True
    assert longest_diameter(mask, (0.3, 0.7)) == pytest.approx(3 * np.hypot(step[0] * 0.3, step[1] * 0.7))


def test_feret_diameter_of_scikit_image():
    """It measures a hull of pixel edges, up to half a pixel wider, instead of centres."""
    mask = np.zeros((120, 150), np.uint8)
    mask[ellipse(60, 70, 30, 55, rotation=0.5)] = 1
    feret = regionprops(mask)[0].feret_diameter_max
    assert feret - 2 <= longest_diameter(mask == 1) <= feret - 0.9


def test_large_masks_are_quick():
    picture, volume = np.zeros((4000, 4000), bool), np.zeros((200, 512, 512), bool)
    picture[disk((2000, 2000), 1990)] = True
    volume[:, 10:500, 20:480] = True
    start = time.perf_counter()
    assert longest_diameter(picture) == pytest.approx(2 * 1989, abs=2)
    assert longest_diameter(volume, (3, 0.5, 0.5)) == pytest.approx(np.hypot(489, 459) * 0.5)
    assert time.perf_counter() - start < 10
