from types import SimpleNamespace

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from custom.images.geometry import Geometry
from custom.images.pictures import picture_spacing, read_picture, read_picture_label
from custom.inference.mask_files import mask_ending, write_mask
from custom.inference.sources import InputImage, read_input

RNG = np.random.default_rng(0)


def source(**fields):
    return InputImage(path="a", **{"array": np.zeros((4, 5, 6), np.uint8), "kind": "volume"} | fields)


def series(geometry, files, uids):
    return SimpleNamespace(geometry=geometry, files=tuple(files), sop_uids=tuple(uids))


@pytest.mark.parametrize(
    ("image", "ending"),
    [
        (source(format="picture", kind="picture"), ".png"),
        (source(format="tiff"), ".tif"),
        (source(format="nifti"), ".nii.gz"),
        (source(format="npz"), ".npz"),
        (source(format="dicom", series=series(1, "a", "1111")), ".dcm"),
        (source(format="dicom", series=series(1, "abcd", "1234")), ".dcm"),
        (source(format="dicom", kind="picture", series=series(None, "a", "1")), ".dcm"),
        (source(format="dicom", series=series(None, "a", "1111")), ".tif"),
        (source(format="dicom", geometry=Geometry(np.eye(4), (6, 5, 4)), series=series(1, "ab", "1122")), ".nii.gz"),
    ],
)
def test_endings(image, ending):
    assert mask_ending(image) == ending


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_picture(tmp_path, dtype):
    labels = RNG.integers(0, np.iinfo(dtype).max + 1, (7, 9)).astype(dtype)
    write_mask(tmp_path / "a.png", labels, {}, source(format="picture", kind="picture"))
    found = np.asarray(Image.open(tmp_path / "a.png"))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("spacing", [None, (3.0, 0.5, 0.25)])
def test_stack(tmp_path, dtype, spacing):
    labels = RNG.integers(0, 200, (4, 7, 9)).astype(dtype)
    write_mask(tmp_path / "a.tif", labels, {}, source(format="tiff", spacing=spacing))
    found = read_picture_label(tmp_path / "a.tif")
    assert found.dtype == dtype and picture_spacing(tmp_path / "a.tif") == spacing
    np.testing.assert_array_equal(found, labels)
    assert read_picture(tmp_path / "a.tif").shape == labels.shape


@pytest.mark.parametrize("shape", [(12, 10, 8), (12, 10, 1), (12, 1, 8), (1, 10, 8)])
def test_nifti_on_a_rotated_anisotropic_grid(tmp_path, shape):
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", [20, -15, 8], degrees=True).as_matrix()
    affine[:3, :3] = turn @ np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0]]) @ np.diag([0.7, 3.1, 0.9])
    affine[:3, 3] = [5, 6, -70]
    values = RNG.integers(0, 255, shape).astype(np.uint8)
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "in.nii")
    image = read_input(tmp_path / "in.nii")
    write_mask(tmp_path / "out.nii.gz", image.array, {}, image)
    before, after = nib.load(tmp_path / "in.nii"), nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_allclose(after.affine, before.affine, atol=1e-5)
    assert after.header.get_zooms() == before.header.get_zooms()
    assert (after.header["sform_code"], after.header["qform_code"]) == (2, 2) and after.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(after.dataobj), values)


@pytest.mark.parametrize("depth", [1, 5])
def test_dicom(tmp_path, write_series, depth):
    slices = RNG.integers(-100, 200, (depth, 10, 12))
    folder = write_series(tmp_path / "series", slices)
    image = read_input(folder)
    labels = np.zeros(image.array.shape, np.uint8)
    labels[..., 2:5, 3:9] = 1
    labels[..., 7, 1] = 3
    write_mask(tmp_path / "a.dcm", labels, {k: f"box {k}" for k in (1, 2, 3)}, image)
    seg = hd.seg.segread(tmp_path / "a.dcm")
    assert [seg.get_segment_description(n).segment_label for n in seg.segment_numbers] == ["box 1", "box 2", "box 3"]
    files = [pydicom.dcmread(path) for path in folder.iterdir()]
    uids = [file.SOPInstanceUID for file in sorted(files, key=lambda file: float(file.ImagePositionPatient[2]))]
    found = seg.get_pixels_by_source_instance(uids, combine_segments=True, assert_missing_frames_are_empty=True)
    np.testing.assert_array_equal(found, labels.reshape(depth, 10, 12))
    assert seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing == [0.8, 0.6]
    assert seg.FrameOfReferenceUID == "1.2.3.5" and seg.PatientID == "P1"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_npz(tmp_path, dtype):
    labels = np.full((4, 5), 255, dtype)
    write_mask(tmp_path / "a.npz", labels, {}, source(format="npz", kind="picture"))
    with np.load(tmp_path / "a.npz") as content:
        assert content.files == ["segs"] and content["segs"].dtype == np.uint8 and (content["segs"] == 255).all()
