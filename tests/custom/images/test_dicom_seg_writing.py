import shutil
import subprocess
import warnings

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage, OphthalmicPhotography8BitImageStorage, UltrasoundImageStorage
from scipy.spatial.transform import Rotation

from custom.errors import InputError
from custom.images.colours import colour_of
from custom.images.dicom import read_series
from custom.images.dicom_seg import read_seg
from custom.images.dicom_seg_writing import seg_problem, write_seg

SHAPE = (5, 6, 7)  # slices, rows, columns
EMPTY = np.zeros(SHAPE, np.int16)
AXIAL, PRONE, SAGITTAL = ((1, 0, 0), (0, 1, 0)), ((-1, 0, 0), (0, -1, 0)), ((0, 1, 0), (0, 0, -1))
OBLIQUE = Rotation.from_euler("xyz", [20, -15, 10], degrees=True).as_matrix()[:, :2].T
RETIRED = "1.2.840.10008.5.1.4.1.1.6"
NAMES = {1: "liver", 2: "left kidney", 3: "empty"}


@pytest.fixture
def stack(tmp_path, write_stack):
    """Return a function that writes a stack and returns its datasets and the series."""

    def make(directions=AXIAL, pixels=EMPTY, **tags):
        datasets = write_stack(tmp_path / "ct", pixels, directions=directions, **tags)
        return datasets, read_series(tmp_path / "ct")

    return make


def blobs(shape=SHAPE):
    """Return a label map with ids 1 and 2 and an empty first slice, as stored."""
    label = np.random.default_rng(3).integers(0, 3, shape).astype(np.uint8)
    label[0] = 0
    return label


def changed(series_folder, change):
    """Read a series after a change to each of its files."""
    for path in series_folder.iterdir():
        dataset = pydicom.dcmread(path)
        change(dataset)
        dataset.save_as(path)
    return read_series(series_folder)


def item(**tags):
    result = Dataset()
    for keyword, value in tags.items():
        setattr(result, keyword, value)
    return result


@pytest.mark.parametrize("directions", [AXIAL, PRONE, SAGITTAL, OBLIQUE])
def test_written_segmentation(tmp_path, stack, directions):
    datasets, series = stack(directions)
    uids = [d.SOPInstanceUID for d in datasets]
    label = series.to_canonical(blobs()[[uids.index(uid) for uid in series.sop_uids]])
    path = tmp_path / "seg.dcm"
    for file in (tmp_path / "ct").iterdir():
        file.unlink()  # they are not read again
    before = [str(header) for header in series.headers]
    assert seg_problem(series) is None
    write_seg(path, label, NAMES, series)
    assert [str(header) for header in series.headers] == before
    assert not list(tmp_path.glob("*.partial"))
    seg = hd.seg.segread(path)
    by_source = seg.get_pixels_by_source_instance(uids, combine_segments=True, assert_missing_frames_are_empty=True)
    np.testing.assert_array_equal(by_source, blobs())
    assert [seg.get_segment_description(n).segment_label for n in (1, 2, 3)] == list(NAMES.values())
    assert seg.get_segment_description(1).algorithm_identification[0].AlgorithmName == "MCP-MedSAM"
    assert seg.get_segment_description(1).SegmentAlgorithmName == "MCP-MedSAM"
    np.testing.assert_array_equal(read_seg(path, series)[0], label)


def test_what_segments_are(tmp_path, stack):
    write_seg(tmp_path / "seg.dcm", blobs(), NAMES, stack()[1])
    kidney, other = pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence[1:]
    category, kind = kidney.SegmentedPropertyCategoryCodeSequence[0], kidney.SegmentedPropertyTypeCodeSequence[0]
    assert (category.CodeValue, category.CodeMeaning) == ("91723000", "Anatomical Structure")
    assert (kind.CodeValue, kind.CodingSchemeDesignator, kind.CodeMeaning) == ("64033007", "SCT", "Kidney")
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert other.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Tissue"
    colour = hd.color.CIELabColor.from_dicom_value(tuple(kidney.RecommendedDisplayCIELabValue)).to_rgb()
    np.testing.assert_allclose(colour, colour_of(2), atol=1)


def test_names(tmp_path, stack):
    _, series = stack(PatientName="Müller^Jörg", SpecificCharacterSet="ISO_IR 100")
    write_seg(tmp_path / "seg.dcm", blobs(), {1: "肝" * 70, 2: "a", 3: "a"}, series)
    assert read_seg(tmp_path / "seg.dcm", series)[1] == {1: "肝" * 64, 2: "a", 3: "a 2"}
    assert str(pydicom.dcmread(tmp_path / "seg.dcm").PatientName) == "Müller^Jörg"


def test_ids_become_segment_numbers(tmp_path, stack):
    _, series = stack()
    label = blobs().astype(np.int64) * 300
    write_seg(tmp_path / "seg.dcm", label, {600: "b", 300: "a"}, series)
    read, names = read_seg(tmp_path / "seg.dcm", series)
    np.testing.assert_array_equal(read, blobs())
    assert names == {1: "a", 2: "b"}


def test_one_object_as_truth_values(tmp_path, stack):
    _, series = stack()
    write_seg(tmp_path / "seg.dcm", blobs() == 2, {1: "a"}, series)
    np.testing.assert_array_equal(read_seg(tmp_path / "seg.dcm", series)[0], blobs() == 2)


@pytest.mark.parametrize("size", [(143, 161), (99, 98)])
def test_rows_times_columns_no_multiple_of_eight(tmp_path, stack, size):
    shape = (3, *size)
    _, series = stack(pixels=np.zeros(shape, np.int16))
    write_seg(tmp_path / "seg.dcm", blobs(shape), NAMES, series)
    np.testing.assert_array_equal(read_seg(tmp_path / "seg.dcm", series)[0], blobs(shape))


def test_headers_that_break_the_standard_a_little(tmp_path, write_stack):
    def spoil(dataset):
        del dataset.SliceThickness, dataset.PatientID  # and names ...
        dataset.StudyDate, dataset.StudyTime = "1997.04.24", "14:04:38"

    tilt = {k: {"ImageOrientationPatient": [1, 0, 0, 0, 1, 1e-5 * k]} for k in range(5)}
    write_stack(tmp_path / "ct", EMPTY, edit=tilt.get, PatientSex="male", PatientIdentityRemoved="YES")
    series = changed(tmp_path / "ct", spoil)
    assert seg_problem(series) is None
    write_seg(tmp_path / "seg.dcm", blobs(), NAMES, series)
    np.testing.assert_array_equal(read_seg(tmp_path / "seg.dcm", series)[0], blobs())
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert (seg.StudyDate, seg.StudyTime, seg.PatientSex) == ("19970424", "140438", "")
    assert seg.DeidentificationMethod == "not recorded"


@pytest.mark.parametrize("own", [True, False])
def test_multi_frame_source(tmp_path, write_image, own):
    order = [3, 0, 4, 1, 2]  # position of each frame
    plane = {
        "PlaneOrientationSequence": [item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        "PixelMeasuresSequence": [item(PixelSpacing=[0.7, 0.9], SliceThickness=2.5)],
    }
    frames = [
        item(PlanePositionSequence=[item(ImagePositionPatient=[0, 0, 2.5 * k])], **(plane if own else {}))
        for k in order
    ]
    write_image(
        tmp_path / "ct.dcm",
        EMPTY,
        SOPClassUID=EnhancedCTImageStorage,
        NumberOfFrames=5,
        FrameOfReferenceUID="1.2.3.5",
        SharedFunctionalGroupsSequence=[item(**({} if own else plane))],
        PerFrameFunctionalGroupsSequence=frames,
    )
    series = read_series(tmp_path / "ct.dcm")
    path = tmp_path / "seg.dcm"
    write_seg(path, blobs(), NAMES, series)
    by_frame = hd.seg.segread(path).get_pixels_by_source_frame(
        series.sop_uids[0], [1, 2, 3, 4, 5], combine_segments=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(by_frame, blobs()[order])
    np.testing.assert_array_equal(read_seg(path, series)[0], blobs())


@pytest.mark.parametrize("spaced", [True, False])
@pytest.mark.parametrize("kind", [UltrasoundImageStorage, OphthalmicPhotography8BitImageStorage])
def test_pictures(tmp_path, write_image, kind, spaced):
    colour = np.zeros((6, 7, 3), np.uint8)
    tags = {"PixelSpacing": [0.1, 0.2]} if spaced else {"PatientOrientation": ["L", "F"]}
    write_image(tmp_path / "a.dcm", colour, SOPClassUID=kind, Modality="US", **tags)
    series = read_series(tmp_path / "a.dcm")
    label = blobs((2, 6, 7))[1:]
    write_seg(tmp_path / "seg.dcm", label, NAMES, series)
    seg = hd.seg.segread(tmp_path / "seg.dcm")
    np.testing.assert_array_equal(
        seg.get_pixels_by_source_instance(series.sop_uids, combine_segments=True, ignore_spatial_locations=True), label
    )
    assert seg["PatientOrientation"].value == ("" if spaced else ["L", "F"])
    np.testing.assert_array_equal(read_seg(tmp_path / "seg.dcm", series)[0], label)
    write_image(tmp_path / "b.dcm", colour, SOPClassUID=kind, Modality="US")
    with pytest.raises(InputError, match="neither a position nor a source image"):
        read_seg(tmp_path / "seg.dcm", read_series(tmp_path / "b.dcm"))


def test_slice_without_frame_of_reference(tmp_path, write_stack):
    write_stack(tmp_path / "ct", EMPTY[:1])
    series = changed(tmp_path / "ct", lambda dataset: dataset.pop("FrameOfReferenceUID"))
    assert seg_problem(series) is None
    label = blobs()[1:2]
    write_seg(tmp_path / "seg.dcm", label, NAMES, series)
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert "FrameOfReferenceUID" not in seg
    assert "ImagePositionPatient" not in str(seg)
    np.testing.assert_array_equal(read_seg(tmp_path / "seg.dcm", series)[0], label)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda d: d.pop("FrameOfReferenceUID"), "no FrameOfReferenceUID in a volume of 5 slices"),
        (lambda d: d.pop("StudyInstanceUID"), "no StudyInstanceUID"),
        (lambda d: setattr(d, "StudyInstanceUID", "9f"), "StudyInstanceUID '9f', which is not a UID"),
        (lambda d: setattr(d, "SOPClassUID", RETIRED), "a kind of image that highdicom does not know: Ultrasound Im"),
        (lambda d: setattr(d, "StudyInstanceUID", d.SOPInstanceUID), "headers that highdicom cannot use: ValueError"),
    ],
)
def test_problems(tmp_path, write_stack, change, problem):
    write_stack(tmp_path / "ct", EMPTY)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        series = changed(tmp_path / "ct", change)
    assert seg_problem(series).startswith(problem)
    with pytest.raises(InputError, match=problem):
        write_seg(tmp_path / "seg.dcm", blobs(), NAMES, series)
    assert not (tmp_path / "seg.dcm").exists()


def test_what_cannot_be_written(tmp_path, stack, write_image):
    _, series = stack()
    path = tmp_path / "seg.dcm"
    for label, names, text in (
        (blobs()[1:], NAMES, r"shape \(4, 6, 7\); allowed: \(5, 6, 7\)"),
        (blobs(), {1: "liver"}, r"no name for ids \[2\]"),
        (blobs(), {}, "at least one id"),
        (blobs(), {0: "b", 1: "a", 2: "c"}, "from 1 up"),
    ):
        with pytest.raises(InputError, match=text):
            write_seg(path, label, names, series)
    write_image(tmp_path / "us.dcm", np.zeros(SHAPE, np.uint8), Modality="US", NumberOfFrames=5)
    with pytest.raises(InputError, match="5 frames without a position"):
        write_seg(path, blobs(), NAMES, read_series(tmp_path / "us.dcm"))
    assert not path.exists()


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools is not installed")
@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm",
        "MR_small.dcm",
        "JPEG2000.dcm",
        "JPEG-lossy.dcm",
        "693_J2KI.dcm",
        "ExplVR_BigEnd.dcm",
        "SC_rgb_small_odd.dcm",
        "image_dfl.dcm",
        "examples_palette.dcm",
        "US1_UNCR.dcm",
    ],
)
def test_as_the_standard_asks(tmp_path, name):
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip("a file of pydicom-data, which is not installed")
    series = read_series(path)
    label = np.zeros(series.array.shape[:3], np.uint8)
    label[:, 3:9, 4:20], label[:, 10:14, 1:5] = 1, 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_seg(tmp_path / "seg.dcm", label, NAMES, series)
    np.testing.assert_array_equal(read_seg(tmp_path / "seg.dcm", series)[0], label)
    found = subprocess.run(["dciodvfy", tmp_path / "seg.dcm"], capture_output=True, text=True)
    assert "Segmentation" in found.stderr
    assert not [line for line in found.stderr.splitlines() if line.startswith("Error")]
