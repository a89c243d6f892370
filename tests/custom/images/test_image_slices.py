import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff

from custom.images.reading import image_of_array, read_image
from custom.inference.slices import in_volume


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "ASR", "IRP"])
@pytest.mark.parametrize("k", [0, 3])
def test_a_slice_is_that_of_the_file(tmp_path, axes, k):
    """A marked voxel of slice k is inside a box in the file's voxels, and is restored to the same place."""
    shape = (9, 8, 6)
    array = np.random.default_rng(0).integers(1, 90, shape).astype(np.uint8)
    array[2, 5, k] = 255
    affine = inv_ornt_aff(axcodes2ornt(axes), shape)
    nib.save(nib.Nifti1Image(array, affine), tmp_path / "v.nii.gz")
    volume = read_image(tmp_path / "v.nii.gz")
    seen = volume.take_slice(k)
    assert seen.size == (9, 8) and seen.kind == "picture"
    x, y, *_ = seen.boxes_to_array(seen.checked_boxes([[2, 5, 3, 6]]))[0].astype(int)
    x_max, y_max = seen.boxes_to_array(seen.checked_boxes([[2, 5, 3, 6]]))[0].astype(int)[2:]
    assert 255 in seen.array[y : y_max + 1, x : x_max + 1]
    labels = (seen.array == 255).astype(np.uint8)
    back = in_volume(volume, [(k, seen.to_ijk(labels)[:, :, 0])], np.uint8)
    np.testing.assert_array_equal(volume.to_source(back), array == 255)


def test_pictures_are_turned_to_x_y():
    image = image_of_array(np.zeros((4, 6), np.uint8))
    labels = np.arange(24).reshape(4, 6)
    assert image.to_ijk(labels).shape == (6, 4, 1) and image.to_ijk(labels)[5, 0, 0] == 5


def test_a_slice_of_an_array():
    array = np.random.default_rng(0).integers(0, 90, (5, 6, 7)).astype(np.uint8)
    seen = image_of_array(array).take_slice(3)
    assert seen.kind == "picture" and seen.size == (7, 6)
    np.testing.assert_array_equal(seen.array, array[3])
