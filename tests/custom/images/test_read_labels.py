import nibabel as nib
import numpy as np
import pytest

from custom.errors import InputError
from custom.images.reading import read_labels

RNG = np.random.default_rng(0)
AFFINE = np.array([[-0.56, 0.42, 0, 5], [-0.42, -0.88, 0, 6], [0, 0, 2.1, 7], [0, 0, 0, 1]])


def test_label_with_other_axes_on_the_same_grid(tmp_path):
    ids = RNG.integers(0, 4, (6, 5, 4)).astype(np.uint8)
    volume = nib.Nifti1Image(ids, AFFINE)
    turned = volume.as_reoriented([[2, 1], [0, -1], [1, -1]])
    nib.save(volume, tmp_path / "v.nii.gz")
    nib.save(turned, tmp_path / "l.nii.gz")
    assert turned.shape != volume.shape
    image = read_labels(tmp_path / "v.nii.gz")
    np.testing.assert_array_equal(read_labels(tmp_path / "l.nii.gz", image).array, image.array)


@pytest.mark.parametrize(
    ("shape", "origin", "match"),
    [((6, 5, 4), 0.0, None), ((6, 5, 4), 0.06, None), ((6, 5, 4), 0.2, "affine"), ((6, 5, 3), 0.0, "shape")],
)
def test_grid_of_a_label(tmp_path, shape, origin, match):
    """The smallest voxel side is 0.7 mm."""
    nib.save(nib.Nifti1Image(np.zeros((6, 5, 4), np.uint8), AFFINE), tmp_path / "v.nii")
    image, affine, path = read_labels(tmp_path / "v.nii"), AFFINE.copy(), tmp_path / "l.nii"
    affine[0, 3] += origin
    nib.save(nib.Nifti1Image(np.ones(shape, np.uint8), affine), path)
    if match is None:
        assert read_labels(path, image).array.shape == (4, 5, 6)
    else:
        with pytest.raises(InputError, match=rf"l\.nii: {match}: .*; allowed: .* of .*v\.nii"):
            read_labels(path, image)
