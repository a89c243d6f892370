"""Cases from pydicom's own sample files: a CT of five slices, three radiographs and a scout."""

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from custom.errors import InputError
from custom.images.dicom import read_series
from custom.images.dicom_seg_writing import write_seg
from data_prep.readers.base import safe_name
from data_prep.readers.dicom import DicomReader
from tests.custom.conftest import axial_series

SAMPLES = Path(get_testdata_file("dicomdirtests/DICOMDIR")).parent


@pytest.fixture
def source(tmp_path):
    """A folder with a CT, a radiograph and a file of another format."""
    root = tmp_path / "hospital"
    shutil.copytree(SAMPLES / "98892001" / "CT5N", root / "a" / "ct")
    shutil.copytree(SAMPLES / "77654033" / "CR1", root / "b" / "cr")
    (root / "notes.txt").write_text("x" * 300)
    return root


def segment(folder, path, ids=(1,)):
    """Write a SEG of squares beside a series and return its label map."""
    series = read_series(folder)
    label = np.zeros(series.array.shape, np.uint8)
    for i in ids:
        label[:, 2 * i : 2 * i + 5, 3:8] = i
    write_seg(path, label, {i: f"organ {i}" for i in ids}, series)
    return label


def edit(path, **tags):
    dataset = pydicom.dcmread(path)
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)


def test_series_with_their_segmentations(source):
    label = segment(source / "a" / "ct", source / "a" / "seg.dcm", (1, 2))
    segment(source / "a" / "ct", source / "seg2")
    picture = segment(source / "b" / "cr", source / "b" / "x.dcm")
    reader = DicomReader(source)
    first, second, ray = reader.sources()
    assert [s.error for s in (first, second, ray)] == [None] * 3
    assert (
        len(first.files) == 6
        and first.files[-1].endswith("seg.dcm")
        and first.entry == {"kind": "SEG", "modality": None, "names": {}}
    )
    assert len({s.name for s in (first, second, ray)}) == 3
    assert all(s.name == safe_name(s.name) and s.name.startswith(("98890234", "77654033")) for s in (first, ray))
    case = reader.load(first)
    series = read_series(source / "a" / "ct")
    np.testing.assert_array_equal(case.image.array, series.array)
    np.testing.assert_array_equal(case.label, label)
    assert (case.modality, case.dataset, case.split, case.image.kind) == ("CT", "hospital", None, "volume")
    assert case.names == {1: "organ 1", 2: "organ 2"} and case.meta == {"patient": "98890234"}
    assert case.image.spacing == (2.5, 0.488281, 0.488281) and case.image.geometry.same_grid(series.geometry)
    case = reader.load(ray)
    np.testing.assert_array_equal(case.label, picture)
    assert (case.modality, case.image.kind, case.image.geometry) == ("X-Ray", "picture", None)


def test_modality_and_names(source):
    segment(source / "a" / "ct", source / "a" / "seg.dcm", (1, 2))
    shutil.rmtree(source / "b")
    reader = DicomReader(source, modality="mri", names={"2": "spleen"})
    case = reader.load(reader.sources()[0])
    assert case.modality == "MR" and case.names == {1: "organ 1", 2: "spleen"}


def test_unknown_modality(source):
    for file in (source / "b" / "cr").iterdir():
        edit(file, Modality="OT")
    segment(source / "b" / "cr", source / "b" / "seg.dcm")
    shutil.rmtree(source / "a")
    reader = DicomReader(source)
    with pytest.raises(InputError, match="Modality: found 'OT'"):
        reader.load(reader.sources()[0])


def test_images_without_labels(source):
    found = DicomReader(source).sources()
    assert [len(s.files) for s in found] == [5, 1]
    assert all("label: found none for series" in str(s.error) for s in found)


def test_labels_without_images(source):
    segment(source / "a" / "ct", source / "a" / "seg.dcm")
    shutil.rmtree(source / "a" / "ct")
    shutil.rmtree(source / "b")
    (orphan,) = DicomReader(source).sources()
    assert "which is missing; allowed: the series it was drawn on" in str(orphan.error)


def test_frame_of_reference_where_no_series_is_named(source):
    segment(source / "a" / "ct", source / "a" / "seg.dcm")
    shutil.rmtree(source / "b")
    edit(source / "a" / "seg.dcm", ReferencedSeriesSequence=None)
    (found,) = DicomReader(source).sources()
    assert found.error is None and len(found.files) == 6
    shutil.copytree(source / "a" / "ct", source / "again")
    for file in (source / "again").iterdir():
        edit(file, SeriesInstanceUID="1.2.3")
    assert "none named, and 2 in its frame of reference" in str(DicomReader(source).sources()[0].error)


def test_pictures_of_one_series_are_cases_of_their_own(source):
    shutil.rmtree(source / "a")
    (first,) = (source / "b" / "cr").iterdir()
    second = source / "b" / "other.dcm"
    shutil.copy(first, second)
    segment(first, source / "seg.dcm")
    edit(second, SOPInstanceUID="1.2.3")
    found = DicomReader(source).sources()
    assert [(s.error is None, s.files[0]) for s in found] == [(True, str(first)), (False, str(second))]


def test_unreadable_file(source):
    whole = next((source / "a" / "ct").iterdir()).read_bytes()
    (source / "cut").write_bytes(whole[:250])
    broken = DicomReader(source).sources()[0]
    assert broken.error.source == str(source / "cut") == broken.files[0]


@pytest.mark.parametrize("names", [["a"], {"x": "a"}, {0: "a"}, {"*": "a"}])
def test_bad_names(tmp_path, names):
    with pytest.raises(InputError, match="arguments: names"):
        DicomReader(tmp_path, names=names)


def test_bad_source(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        DicomReader(tmp_path / "none")
    with pytest.raises(InputError, match=r"no DICOM file \(0 other files\)"):
        DicomReader(tmp_path).sources()
    with pytest.raises(InputError, match="modality"):
        DicomReader(tmp_path, modality="sonar")


def test_a_segmentation_of_an_odd_size(tmp_path):
    """Its frames are packed bits, and end within a byte."""
    axial_series(tmp_path / "ct", np.zeros((3, 11, 13), np.int16))
    label = segment(tmp_path / "ct", tmp_path / "seg.dcm")
    reader = DicomReader(tmp_path)
    np.testing.assert_array_equal(reader.load(reader.sources()[0]).label, label)
