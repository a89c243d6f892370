import numpy as np
import pytest

from custom.modalities import MODALITIES
from data_prep.phantoms import make_phantom
from data_prep.phantoms.shapes import grid, radius, speckle, texture, turned_radius, wavy_radius

COLOUR = ("Endoscopy", "Dermoscopy", "Fundus", "Microscopy")
VOLUMES = ("CT", "MR", "PET")


@pytest.mark.parametrize("number", [0, 5])
@pytest.mark.parametrize("modality", MODALITIES)
def test_phantom(modality, number):
    phantom = make_phantom(modality, number)
    again = make_phantom(modality, number)
    assert phantom.image.tobytes() == again.image.tobytes() and phantom.label.tobytes() == again.label.tobytes()
    assert phantom.image.shape[:3] == phantom.label.shape
    assert phantom.image.ndim == (4 if modality in COLOUR else 3)
    assert (phantom.spacing is not None) == (len(phantom.label) > 1) == (modality in VOLUMES)
    ids = set(np.unique(phantom.label).tolist()) - {0}
    assert ids == (set(phantom.names) if "*" not in phantom.names else set(range(1, len(ids) + 1)))
    assert not np.array_equal(phantom.label, make_phantom(modality, number + 2).label)


@pytest.mark.parametrize("modality", MODALITIES)
def test_masks_are_visible(modality):
    """The mean inside some mask must differ clearly from the mean of the picture outside all masks."""
    phantom = make_phantom(modality, 1)
    grey = phantom.image.astype(float).reshape(*phantom.label.shape, -1).mean(-1)
    outside = grey[phantom.label == 0]
    means = [grey[phantom.label == i].mean() for i in np.unique(phantom.label) if i]
    assert max(abs(m - outside.mean()) for m in means) > 0.6 * outside.std()


@pytest.mark.parametrize("angle", [0.0, 0.7, 2.0])
def test_ellipse_area(angle):
    inside = turned_radius(grid((200, 220)), (3, -5), (40, 70), angle) <= 1
    assert inside.sum() == pytest.approx(np.pi * 40 * 70, rel=4e-3)


def test_ellipsoid_volume_in_mm():
    spacing = (2.0, 1.0, 1.5)
    inside = radius(grid((40, 80, 70), spacing), (1, 2, -3), (30, 30, 40)) <= 1
    assert inside.sum() * np.prod(spacing) == pytest.approx(4 / 3 * np.pi * 30 * 30 * 40, rel=5e-3)


def test_wavy_area():
    """The area of r = R (1 + a cos kt) is pi R^2 (1 + a^2 / 2)."""
    inside = wavy_radius(grid((200, 200)), (0, 0), (60, 60), [(3, 0.2, 0.4)]) <= 1
    assert inside.sum() == pytest.approx(np.pi * 60**2 * 1.02, rel=2e-3)


def test_noise_statistics():
    rng = np.random.default_rng(0)
    smooth = texture(rng, (64, 64), 2)
    assert smooth.mean() == pytest.approx(0, abs=1e-9) and smooth.std() == pytest.approx(1)
    rough = speckle(rng, (256, 256), 0.5)
    assert rough.mean() == pytest.approx(1)
    assert rough.std() == pytest.approx(np.sqrt(4 / np.pi - 1), rel=0.05)  # contrast of fully developed speckle
