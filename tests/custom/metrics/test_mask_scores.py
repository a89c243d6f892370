import warnings

import numpy as np
import pytest
import torch
from scipy import ndimage

from custom.errors import InputError
from custom.metrics import dice_score, surface_dice

surface_distance = pytest.importorskip("surface_distance")


def deepmind(pred, label, spacing, tolerance=2.0):
    distances = surface_distance.compute_surface_distances(label, pred, spacing)
    return surface_distance.compute_surface_dice_at_tolerance(distances, tolerance)


def blob(rng, shape, sigma=3.0):
    field = ndimage.gaussian_filter(rng.normal(size=shape), sigma)
    return field > np.quantile(field, rng.uniform(0.6, 0.95))


def pairs(shape, count=50):
    """Unrelated blobs, slightly changed blobs and noise; many touch the border of the image."""
    rng = np.random.default_rng(len(shape))
    for i in range(count):
        label = blob(rng, shape) if i % 5 else rng.random(shape) < 0.02
        if i % 5 == 0:
            pred = rng.random(shape) < 0.02
        elif i % 2:
            pred = blob(rng, shape)
        else:
            pred = np.roll(label, (1, 2), (-2, -1)) ^ (blob(rng, shape, 1.0) & (rng.random(shape) < 0.1))
        yield pred, label


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((48, 40), (1.0, 1.0)),
        ((48, 40), (0.7, 1.3)),
        ((48, 40), (0.4, 2.0)),
        # Three pixels are 2.0000001 mm, just outside the tolerance: float32 distances cannot show it.
        ((48, 40), (0.6666667, 1.0)),
        ((12, 24, 20), (5.0, 0.7, 0.8)),
        ((12, 24, 20), (0.6666667, 1.0, 0.4)),
    ],
)
def test_surface_dice_equals_deepmind(shape, spacing):
    preds, labels = map(np.stack, zip(*pairs(shape), strict=True))
    assert np.concatenate([labels[:, 0].ravel(), labels[:, -1].ravel()]).any()  # some do touch the border
    expected = [deepmind(p, t, spacing) for p, t in zip(preds, labels, strict=True)]
    assert np.ptp(expected) > 0.3
    np.testing.assert_allclose(surface_dice(preds, labels, spacing=spacing), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("tolerance", [0.0, 1.0, 3.5])
def test_tolerance(tolerance):
    preds, labels = map(np.stack, zip(*pairs((48, 40), 10), strict=True))
    expected = [deepmind(p, t, (1.0, 1.0), tolerance) for p, t in zip(preds, labels, strict=True)]
    np.testing.assert_allclose(surface_dice(preds, labels, tolerance=tolerance), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("box", [(0, 6, 0, 7), (42, 48, 35, 40), (0, 48, 0, 40), (0, 1, 0, 1)])
def test_masks_at_the_border(box):
    top, bottom, left, right = box
    label, pred = np.zeros((2, 48, 40), bool)
    label[top:bottom, left:right] = True
    pred[20:30, 10:40] = True
    assert surface_dice(pred[None], label[None])[0] == pytest.approx(deepmind(pred, label, (1.0, 1.0)), abs=1e-6)


@pytest.mark.parametrize("shape", [(48, 40), (12, 24, 20)])
def test_dice_closed_form(shape):
    preds, labels = map(np.stack, zip(*pairs(shape, 10), strict=True))
    axes = tuple(range(1, preds.ndim))
    expected = 2 * (preds & labels).sum(axes) / (preds.sum(axes) + labels.sum(axes))
    np.testing.assert_allclose(dice_score(preds, labels), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("score", [dice_score, surface_dice])
@pytest.mark.parametrize("shape", [(9, 8), (5, 9, 8)])
def test_empty_masks_and_silence(score, shape):
    full, empty = torch.ones(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    pred, label = torch.stack([empty, full, empty, full]), torch.stack([empty, empty, full, full])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = score(pred, label)
    assert result.tolist() == [1, 0, 0, 1] and result.dtype == np.float64
    assert score(pred[:0], label[:0]).shape == (0,)
    assert score(pred.float().numpy(), label.to(torch.uint8)).tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize("score", [dice_score, surface_dice])
@pytest.mark.parametrize("shapes", [((1, 4, 4), (1, 4, 5)), ((2, 4, 4), (1, 4, 4)), ((4, 4), (4, 4))])
def test_wrong_shapes(score, shapes):
    with pytest.raises(InputError, match="shapes of prediction and label"):
        score(*(np.ones(shape, bool) for shape in shapes))


@pytest.mark.parametrize("spacing", [(1.0,), (1.0, 1.0, 1.0), (1.0, 0.0), (1.0, float("nan"))])
def test_wrong_spacing(spacing):
    with pytest.raises(InputError, match="spacing"):
        surface_dice(np.ones((1, 4, 4), bool), np.ones((1, 4, 4), bool), spacing=spacing)
