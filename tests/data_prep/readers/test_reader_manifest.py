import nibabel as nib
import numpy as np
import pytest
import tifffile

from custom.errors import InputError
from data_prep.readers.base import safe_name
from data_prep.readers.manifest import ManifestReader

GREY = np.full((32, 48), 90, np.uint8)


def test_picture_case(manifest, square):
    root, add = manifest
    add("a/b", None, None)
    add("p 1", GREY, square, split="val", patient="007", license="CC0", source="there", note="not kept")
    reader = ManifestReader(root)
    sources = reader.sources()
    assert [s.name for s in sources] == ["US_Set_a_b", "US_Set_p_1"]
    case = reader.load(sources[1])
    assert (case.modality, case.dataset, case.split, case.dimension) == ("US", "Set", "val", 2)
    assert case.spacing is None and not case.instance and case.names == {1: "tumor"}
    assert case.meta == {"patient": "007", "license": "CC0", "source": "there"}
    np.testing.assert_array_equal(case.label[0], square)
    assert case.image.shape == (1, 32, 48)


def test_nifti_case(manifest):
    root, add = manifest
    add("v", None, None, modality="MRI", image="v.nii", label="l.nii.gz", labels={"2": "organ"})
    affine = np.diag((-2, -3, 5, 1))  # LPS
    data = np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(np.int16)
    nib.save(nib.Nifti1Image(data, affine), root / "MRI" / "v.nii")
    nib.save(nib.Nifti1Image((data % 3).astype(np.uint8), affine), root / "MRI" / "l.nii.gz")
    reader = ManifestReader(root)
    case = reader.load(reader.sources()[0])
    assert (case.modality, case.dimension, case.spacing) == ("MR", 3, (5.0, 3.0, 2.0))
    np.testing.assert_array_equal(case.image, data.transpose(2, 1, 0))
    np.testing.assert_array_equal(case.label, (data % 3).transpose(2, 1, 0))
    np.testing.assert_array_equal(case.geometry.affine, affine)
    assert reader.sources()[0].files == (case.image_file, case.label_file)
    nib.save(
        nib.Nifti1Image((data % 3).astype(np.uint8), affine + np.eye(4)[:, [3, 0, 1, 2]]), root / "MRI" / "l.nii.gz"
    )
    with pytest.raises(InputError, match=r"l\.nii\.gz: affine"):
        reader.load(reader.sources()[0])


def test_tiff_stack_case(manifest):
    root, add = manifest
    add("v", None, None, modality="Microscopy", image="v.tif", label="l.tif")
    stack = np.arange(60, dtype=np.uint16).reshape(3, 4, 5)
    told = {"axes": "ZYX", "spacing": 2.0, "unit": "um"}
    tifffile.imwrite(root / "Microscopy/v.tif", stack, imagej=True, metadata=told, resolution=(4, 2))
    tifffile.imwrite(root / "Microscopy/l.tif", stack // 40, photometric="minisblack")
    reader = ManifestReader(root)
    case = reader.load(reader.sources()[0])
    assert case.dimension == 3 and case.spacing == (0.002, 0.0005, 0.00025) and case.geometry is None
    np.testing.assert_array_equal(case.image, stack)
    np.testing.assert_array_equal(case.label, stack // 40)


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
