import shutil

import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file

from custom.errors import InputError
from custom.images.geometry import Geometry
from data_prep.readers.base import safe_name
from data_prep.readers.manifest import ManifestReader
from tests.data_prep.volumes import save_volume

GREY = np.full((32, 48), 90, np.uint8)
AFFINE = np.array([[0, 3, 0, 7], [-2, 0, 0, 9], [0, 0, 5, -20], [0, 0, 0, 1.0]])


def test_picture_case(manifest, square):
    root, add = manifest
    add("a/b", None, None)
    add("p 1", GREY, square, split="val", patient="007", license="CC0", source="there", note="not kept")
    reader = ManifestReader(root)
    sources = reader.sources()
    assert [s.name for s in sources] == ["US_Set_a_b", "US_Set_p_1"]
    case = reader.load(sources[1])
    assert (case.modality, case.dataset, case.split, case.image.kind) == ("US", "Set", "val", "picture")
    assert case.image.spacing is None and not case.instance and case.names == {1: "tumor"}
    assert case.meta == {"patient": "007", "license": "CC0", "source": "there"}
    np.testing.assert_array_equal(case.label[0], square)
    assert case.image.array.shape == (1, 32, 48)


def test_nifti_case(manifest):
    root, add = manifest
    add("v", None, None, modality="MRI", image="v.nii", label="l.nii.gz", labels={"2": "organ"})
    affine = np.diag((-2, -3, 5, 1))  # LPS
    data = np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(np.int16)
    nib.save(nib.Nifti1Image(data, affine), root / "MRI" / "v.nii")
    nib.save(nib.Nifti1Image((data % 3).astype(np.uint8), affine), root / "MRI" / "l.nii.gz")
    reader = ManifestReader(root)
    case = reader.load(reader.sources()[0])
    assert (case.modality, case.image.kind, case.image.spacing) == ("MR", "volume", (5.0, 3.0, 2.0))
    np.testing.assert_array_equal(case.image.array, data.transpose(2, 1, 0))
    np.testing.assert_array_equal(case.label, (data % 3).transpose(2, 1, 0))
    np.testing.assert_array_equal(case.image.geometry.affine, affine)
    assert reader.sources()[0].files == (case.image.path, case.label_file)
    nib.save(
        nib.Nifti1Image((data % 3).astype(np.uint8), affine + np.eye(4)[:, [3, 0, 1, 2]]), root / "MRI" / "l.nii.gz"
    )
    with pytest.raises(InputError, match=r"l\.nii\.gz: affine"):
        reader.load(reader.sources()[0])


def test_tiff_stack_case(manifest):
    root, add = manifest
    add("v", None, None, modality="Microscopy", image="v.tif", label="l.tif")
    stack = np.arange(60, dtype=np.uint16).reshape(3, 4, 5)
    reported = {"axes": "ZYX", "spacing": 2.0, "unit": "um"}
    tifffile.imwrite(root / "Microscopy/v.tif", stack, imagej=True, metadata=reported, resolution=(4, 2))
    tifffile.imwrite(root / "Microscopy/l.tif", stack // 40, photometric="minisblack")
    reader = ManifestReader(root)
    case = reader.load(reader.sources()[0])
    assert (case.image.kind, case.image.spacing, case.image.geometry) == ("volume", (0.002, 0.0005, 0.00025), None)
    np.testing.assert_array_equal(case.image.array, stack)
    np.testing.assert_array_equal(case.label, stack // 40)


@pytest.mark.parametrize(
    ("ending", "label_ending"), [(".nrrd", ".mha"), (".mhd", ".nhdr"), (".mgz", ".nii"), (".img", ".mgh")]
)
def test_volumes_of_any_format(manifest, ending, label_ending):
    root, add = manifest
    add("v", None, None, modality="CT", image=f"v{ending}", label=f"l{label_ending}", labels={"2": "organ"})
    data = np.arange(4 * 5 * 6).reshape(4, 5, 6).astype(np.int16)
    for name, array in ((f"v{ending}", data), (f"l{label_ending}", (data % 3).astype(np.uint8))):
        save_volume(root / "CT" / name, array, AFFINE)
    reader = ManifestReader(root)
    case = reader.load(reader.sources()[0])
    geometry = Geometry(AFFINE, data.shape)
    np.testing.assert_allclose(case.image.geometry.affine, AFFINE, atol=1e-4)
    np.testing.assert_array_equal(case.image.array, geometry.canonical(data))
    np.testing.assert_array_equal(case.label, geometry.canonical(data % 3))
    assert case.image.spacing == pytest.approx((5, 2, 3)) and case.names == {2: "organ"}


def test_npz_and_dicom_images(manifest):
    root, add = manifest
    add("n", None, None, modality="CT", image="2D_CT_n.npz", label="n.npz")
    add("d", None, None, modality="CT", image="d.dcm", label="d.png")
    np.savez(root / "CT" / "2D_CT_n.npz", imgs=GREY)
    np.savez(root / "CT" / "n.npz", gts=GREY // 90)
    shutil.copy(get_testdata_file("CT_small.dcm"), root / "CT" / "d.dcm")
    Image.fromarray(np.ones((128, 128), np.uint8)).save(root / "CT" / "d.png")
    reader = ManifestReader(root)
    npz, dicom = (reader.load(source) for source in reader.sources())
    assert npz.image.array.shape == npz.label.shape == (1, 32, 48) and npz.image.spacing is None
    assert dicom.image.array.shape == dicom.label.shape == (1, 128, 128)
    np.testing.assert_array_equal(dicom.image.array[0], dcmread(root / "CT" / "d.dcm").pixel_array - 1024)


@pytest.mark.parametrize(
    ("labels", "kind", "instance"),
    [({"*": "cell"}, None, True), ({"1": "a"}, "instance", True), ({"1": "a"}, "semantic", False)],
)
def test_instances(manifest, square, labels, kind, instance):
    root, add = manifest
    add("c", GREY, square, labels=labels, **({"label_type": kind} if kind else {}))
    reader = ManifestReader(root)
    assert reader.load(reader.sources()[0]).instance is instance


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"modality": "SPECT"}, "modality: found 'SPECT'"),
        ({"split": "test"}, "split"),
        ({"labels": {}}, "labels"),
        ({"labels": {"0": "background"}}, "labels"),
        ({"labels": {"x": "y"}}, "labels"),
        ({"label_type": "panoptic"}, "label_type"),
        ({"image": "none.png"}, "no such file"),
    ],
)
def test_bad_entry(manifest, square, fields, match):
    root, add = manifest
    add("c", GREY, square, **fields)
    reader = ManifestReader(root)
    with pytest.raises(InputError, match=match):
        reader.load(reader.sources()[0])


@pytest.mark.parametrize("raw", ["{", "[1]", '{"image": "a.png"}', '{"image": 3}'])
def test_bad_line_is_listed_with_its_place(manifest, square, raw):
    root, add = manifest
    add("a", GREY, square)
    add("b", None, None, raw=raw)
    good, bad = ManifestReader(root).sources()
    assert good.error is None
    assert "manifest.jsonl:2" in str(bad.error)


def test_no_source(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        ManifestReader(tmp_path / "none")
    with pytest.raises(InputError, match="no manifest lines"):
        ManifestReader(tmp_path).sources()


@pytest.mark.parametrize("parts", [("../..", "x"), ("a/b\\c", "d:e"), ("é ü", "...")])
def test_safe_name(parts):
    name = safe_name(*parts)
    assert name and not set(name) & set('/\\:*?"<>| ') and not name.startswith(".")
