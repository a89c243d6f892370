import numpy as np
import pytest
import surface_distance
from scipy.ndimage import binary_erosion
from scipy.spatial import cKDTree

from custom.metrics.label_scores import score_labels

RNG = np.random.default_rng(0)


def blobs(shape, shift):
    """Return a label map with an ellipsoid of 1, partly cut by a box of 3."""
    places = np.indices(shape).T + np.array(shift)
    label = (((places - np.array(shape) / 2) / (np.array(shape) / 3)) ** 2).sum(-1).T < 1
    label = label.astype(np.uint8)
    label[tuple(slice(n // 2, n // 2 + 4) for n in shape)] = 3
    return label


def border_distances(one, other, spacing):
    """Return the distances from the border pixels of one mask to those of the other."""
    borders = [np.argwhere(mask & ~binary_erosion(mask)) * spacing for mask in (one, other)]
    return cKDTree(borders[1]).query(borders[0])[0]


@pytest.mark.parametrize(
    ("shape", "spacing", "unit", "pixel"),
    [
        ((14, 20, 24), (3.0, 0.7, 0.8), "mL", 3.0 * 0.7 * 0.8 / 1000),
        ((14, 20, 24), None, "voxels", 1),
        ((30, 40), (0.5, 0.6), "mm2", 0.5 * 0.6),
        ((30, 40), None, "pixels", 1),
    ],
)
def test_against_other_implementations(shape, spacing, unit, pixel):
    pred, truth = blobs(shape, [1] * len(shape)), blobs(shape, [0, 2, 1][: len(shape)])
    scores = score_labels(pred, truth, spacing=spacing, names={3: "cyst"}, case="a")
    assert [(s.case, s.label, s.name, s.unit) for s in scores] == [("a", 1, "", unit), ("a", 3, "cyst", unit)]
    step = np.array(spacing or [1.0] * len(shape))
    for found in scores:
        masks = pred == found.label, truth == found.label
        assert found.dsc == pytest.approx(2 * (masks[0] & masks[1]).sum() / (masks[0].sum() + masks[1].sum()))
        ends = [np.percentile(border_distances(*pair, step), 95) for pair in (masks, masks[::-1])]
        assert found.hd95 == pytest.approx(max(ends), rel=1e-5)
        distances = surface_distance.compute_surface_distances(*masks[::-1], step)
        assert abs(found.hd95 - surface_distance.compute_robust_hausdorff(distances, 95)) <= np.linalg.norm(step)
        if len(shape) == 3 or spacing is None:
            wanted = surface_distance.compute_surface_dice_at_tolerance(distances, 2)
        else:  # a picture's tolerance is in pixels
            distances = surface_distance.compute_surface_distances(*masks[::-1], [1.0, 1.0])
            wanted = surface_distance.compute_surface_dice_at_tolerance(distances, 2)
        assert found.nsd == pytest.approx(wanted)
        assert (found.volume_pred, found.volume_truth) == pytest.approx([mask.sum() * pixel for mask in masks])


def test_labels_in_one_map_and_in_none():
    pred, truth = np.zeros((2, 8, 9), np.uint8)
    pred[2:5, 2:5], truth[2:5, 2:5], truth[7, 8] = 2, 2, 5
    same, missed, absent = score_labels(pred, truth, names={7: "none"})
    assert same[1:] == (2, "", 1, 1, 0, 9, 9, "pixels")
    assert (missed.label, missed.dsc, missed.nsd, missed.volume_pred, missed.volume_truth) == (5, 0, 0, 0, 1)
    assert np.isnan(missed.hd95)
    assert (absent.label, absent.name, absent.volume_pred, absent.volume_truth) == (7, "none", 0, 0)
    assert np.isnan([absent.dsc, absent.nsd, absent.hd95]).all()
    assert score_labels(pred * 0, truth * 0) == []


def test_the_tolerance():
    pred, truth = np.zeros((2, 3, 20, 20), np.uint8)
    pred[1, 5:10, 5:10], truth[1, 8:13, 5:10] = 1, 1
    near, far = (score_labels(pred, truth, spacing=(5.0, 1.0, 1.0), tolerance=t)[0].nsd for t in (3.0, 1.0))
    assert near == 1 > far


def test_borders_at_the_edge_of_the_image():
    """An object at the edge has its border there."""
    pred, truth = np.zeros((2, 10, 10), np.uint8)
    pred[:, :3], truth[:, :6] = 1, 1
    assert score_labels(pred, truth)[0].hd95 == 3
