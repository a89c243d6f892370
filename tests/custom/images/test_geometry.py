import itertools

import numpy as np
import pytest

from custom.errors import InputError
from custom.images.geometry import Geometry

TURNS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))


@pytest.mark.parametrize("steps", [(0.7, 1.1, 1.3), (0.7, 1.1, 4.0)], ids=["fine", "thick"])
@pytest.mark.parametrize(("order", "signs"), TURNS)
def test_boxes_follow_the_array_there_and_back(order, signs, steps):
    affine = np.eye(4)
    affine[:3, :3] = 0
    affine[list(order), range(3)] = np.array(signs) * steps
    geometry = Geometry(affine, (7, 8, 9))
    stored = np.zeros((7, 8, 9), bool)
    stored[1:4, 2:7, 5:6] = True
    box = np.array([[1, 2, 5, 3, 6, 5]])

    places = np.argwhere(geometry.canonical(stored))[:, ::-1]  # z, y, x -> x, y, z
    turned = geometry.canonical_boxes(box)
    np.testing.assert_array_equal(turned, [[*places.min(axis=0), *places.max(axis=0)]])
    np.testing.assert_array_equal(geometry.source_boxes(turned), box)


def test_voxels_of_a_microscope():
    assert Geometry(np.diag([1e-5, 1e-5, 1e-5, 1]), (7, 8, 9)).spacing == (1e-5, 1e-5, 1e-5)


@pytest.mark.parametrize("steps", [np.diag([1, 0, 1]), [[1, 1, 0], [1, 1, 0], [0, 0, 1]], np.diag([1, np.nan, 1])])
def test_axes_without_a_volume(steps):
    affine = np.eye(4)
    affine[:3, :3] = steps
    with pytest.raises(InputError, match="affine: found .*; allowed: a finite, invertible 4x4 matrix"):
        Geometry(affine, (7, 8, 9))
