from dataclasses import replace

import numpy as np
import pytest

from custom.errors import InputError
from custom.images.dicom_rtstruct import read_rtstruct
from custom.images.formats import dicom, mask_formats, rtstruct
from custom.images.reading import seen


@pytest.fixture
def image_of(tmp_path, write_stack):
    def make(slices):
        write_stack(tmp_path / "ct", np.zeros((slices, 6, 7), np.int16))
        return seen(dicom.read(str(tmp_path / "ct")))

    return make


@pytest.mark.parametrize("slices", [1, 3])
def test_mask(tmp_path, image_of, slices):
    image = image_of(slices)
    assert rtstruct.mask_problem(image) is None and rtstruct.mask_ending(image) == ".dcm"
    labels = np.zeros(image.array.shape, np.uint8)
    labels[..., 1:4, 2:5], labels[..., 2, 3] = 2, 0
    rtstruct.write_mask(tmp_path / "mask.dcm", labels, {1: "empty", 2: "liver"}, image)
    read, names = read_rtstruct(tmp_path / "mask.dcm", image.source)
    np.testing.assert_array_equal(read.reshape(labels.shape), labels == 2)
    assert names == {1: "liver"}


def test_other_images(image_of):
    image = image_of(3)
    assert rtstruct.mask_problem(replace(image, format="nifti", source=None)).startswith("no DICOM image")
    assert rtstruct.mask_problem(image.take_slice(1)) == "one slice of a DICOM series"
    lost = replace(image, geometry=None, source=replace(image.source, geometry=None))
    assert rtstruct.mask_problem(lost).startswith("images without a position")


def test_written_only(tmp_path):
    assert mask_formats()["rtstruct"] is rtstruct
    assert not rtstruct.recognises(str(tmp_path / "a.dcm"))
    with pytest.raises(InputError, match="only written"):
        rtstruct.read(str(tmp_path / "a.dcm"))
