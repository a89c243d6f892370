import shutil
import subprocess

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage
from scipy.spatial.transform import Rotation
from skimage.draw import polygon2mask

from custom.errors import InputError
from custom.images.colours import colour_of
from custom.images.dicom import read_series
from custom.images.dicom_rtstruct import read_rtstruct
from custom.images.dicom_rtstruct_writing import outlines, rtstruct_problem, write_rtstruct

SHAPE = (5, 12, 15)  # slices, rows, columns
OBLIQUE = Rotation.from_euler("xyz", [20, -15, 10], degrees=True).as_matrix()[:, :2].T
AXIAL, SAGITTAL = ((1, 0, 0), (0, 1, 0)), ((0, 1, 0), (0, 0, -1))


@pytest.fixture
def series_of(tmp_path, write_stack):
    def make(directions=AXIAL, shape=SHAPE, **tags):
        write_stack(tmp_path / "ct", np.zeros(shape, np.int16), directions=directions, **tags)
        return read_series(tmp_path / "ct")

    return make


def specks(shape=SHAPE):
    """Return a label map of single pixels, lines, pixels that meet at corners, and holes within holes."""
    label = np.random.default_rng(1).integers(0, 4, shape).astype(np.uint8)
    label[1] = 0
    for n, i in enumerate((1, 0, 2, 1, 0)):
        label[1, n : shape[1] - n, n : shape[2] - n] = i
    return label


def winding(mask_shape, loops):
    """Return how often loops along the edges of pixels run around each pixel's centre."""
    rows, columns = np.mgrid[: mask_shape[0], : mask_shape[1]]
    count = np.zeros(mask_shape, int)
    for loop in loops:
        for (row, column), (other, _) in zip(loop, np.roll(loop, -1, axis=0), strict=True):
            crossed = (min(row, other) < rows) & (rows < max(row, other)) & (column > columns)
            count += crossed * int(np.sign(other - row))
    return count


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_outlines_by_every_rule_of_filling(share):
    generator = np.random.default_rng(0)
    for _ in range(40):
        mask = generator.random(generator.integers(1, 14, 2)) < share
        loops = outlines(mask)
        np.testing.assert_array_equal(winding(mask.shape, loops), mask)
        filled = [polygon2mask(mask.shape, loop) for loop in loops]
        np.testing.assert_array_equal(np.any([np.zeros(mask.shape, bool), *filled], axis=0), mask)
        np.testing.assert_array_equal(np.sum([np.zeros(mask.shape, int), *filled], axis=0) % 2 == 1, mask)


def test_corners_of_a_ring():
    mask = np.ones((3, 4), bool)
    mask[1, 1:3] = False
    hole = [(0.5, 0.5), (1.5, 0.5), (1.5, 2.5), (0.5, 2.5)]
    [loop] = outlines(mask)
    outer = [(-0.5, -0.5), (-0.5, 3.5), (2.5, 3.5), (2.5, -0.5)]
    assert [tuple(corner) for corner in loop] == [*outer, (0.5, -0.5), *hole, (0.5, -0.5)]


@pytest.mark.parametrize("directions", [AXIAL, SAGITTAL, OBLIQUE, ((-1, 0, 0), (0, -1, 0))])
def test_every_pixel_returns(tmp_path, series_of, directions):
    series = series_of(directions, spacing=(0.123, 0.456), first=(-987.654, 321.9, -1234.5))
    label = series.to_canonical(specks())
    path = tmp_path / "rt.dcm"
    assert rtstruct_problem(series) is None
    write_rtstruct(path, label, {1: "liver", 2: "left kidney", 3: "a"}, series)
    read, names = read_rtstruct(path, series)
    np.testing.assert_array_equal(read, label)
    assert names == {1: "liver", 2: "left kidney", 3: "a"}
    assert not list(tmp_path.glob("*.partial"))


def test_a_picture(tmp_path, series_of):
    series = series_of(shape=(1, 12, 15))
    label = specks()[:1]
    write_rtstruct(tmp_path / "rt.dcm", label, {1: "a", 2: "b", 3: "c"}, series)
    np.testing.assert_array_equal(read_rtstruct(tmp_path / "rt.dcm", series)[0], label)


def test_what_is_written(tmp_path, series_of):
    series = series_of(PatientName="Müller^Jörg", SpecificCharacterSet="ISO_IR 100", StudyTime="14:04:38")
    label = np.zeros(SHAPE, np.uint16)
    label[3, 4:6, 5:9] = 700
    write_rtstruct(tmp_path / "rt.dcm", label, {700: "肝", 9: "empty", 12: "empty"}, series)
    written = pydicom.dcmread(tmp_path / "rt.dcm")
    assert (written.PatientName, written.StudyInstanceUID, written.StudyTime) == ("Müller^Jörg", "1.2.3", "140438")
    assert [roi.ROIName for roi in written.StructureSetROISequence] == ["empty", "empty 2", "肝"]
    assert [roi.ROINumber for roi in written.StructureSetROISequence] == [1, 2, 3]
    first, _, drawn = written.ROIContourSequence
    assert "ContourSequence" not in first
    assert drawn.ROIDisplayColor == colour_of(700).tolist()
    [contour] = drawn.ContourSequence
    assert contour.ContourImageSequence[0].ReferencedSOPInstanceUID == series.sop_uids[3]
    points = np.reshape(contour.ContourData, (-1, 3)).astype(float)
    corners = [(10 + 0.9 * x, -20 + 0.7 * y, 30 + 2.5 * 3) for x, y in ((4.5, 3.5), (8.5, 3.5), (8.5, 5.5), (4.5, 5.5))]
    np.testing.assert_allclose(points, corners)  # mm, left-posterior-superior
    assert contour.NumberOfContourPoints == 4


def test_frames_of_one_file(tmp_path, write_image):
    def item(**tags):
        result = Dataset()
        for keyword, value in tags.items():
            setattr(result, keyword, value)
        return result

    order = [1, 0, 2]
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelMeasuresSequence=[item(PixelSpacing=[0.7, 0.9], SliceThickness=2.5)],
    )
    write_image(
        tmp_path / "ct.dcm",
        np.zeros((3, 6, 7), np.int16),
        SOPClassUID=EnhancedCTImageStorage,
        NumberOfFrames=3,
        FrameOfReferenceUID="1.2.3.5",
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=[
            item(PlanePositionSequence=[item(ImagePositionPatient=[0, 0, 2.5 * k])]) for k in order
        ],
    )
    series = read_series(tmp_path / "ct.dcm")
    label = np.zeros((3, 6, 7), np.uint8)
    label[0, 2, 3] = 1
    write_rtstruct(tmp_path / "rt.dcm", label, {1: "a"}, series)
    np.testing.assert_array_equal(read_rtstruct(tmp_path / "rt.dcm", series)[0], label)
    written = pydicom.dcmread(tmp_path / "rt.dcm")
    [contour] = written.ROIContourSequence[0].ContourSequence
    assert contour.ContourImageSequence[0].ReferencedFrameNumber == 2
    study = written.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    assert len(study.RTReferencedSeriesSequence[0].ContourImageSequence) == 1


def test_long_outline(tmp_path, series_of):
    series = series_of(shape=(1, 72, 72), spacing=(0.12345, 0.45678), first=(-987.654, 321.9, -1234.5))
    label = np.zeros((1, 72, 72), np.uint8)
    label[0, 1:-1:2] = label[0, 1:-1, 1] = 1
    label[0, 2:-1:4, 3:-1:2] = 1  # a comb
    write_rtstruct(tmp_path / "rt.dcm", label, {1: "a"}, series)
    [contour] = pydicom.dcmread(tmp_path / "rt.dcm").ROIContourSequence[0].ContourSequence
    assert len("\\".join(map(str, contour.ContourData))) > 2**16  # longer than an explicit length can express
    np.testing.assert_array_equal(read_rtstruct(tmp_path / "rt.dcm", series)[0], label)


def test_problems(tmp_path, series_of, write_image):
    write_image(tmp_path / "us.dcm", np.zeros((6, 7), np.uint8))
    picture = read_series(tmp_path / "us.dcm")
    assert rtstruct_problem(picture).startswith("images without a position")
    with pytest.raises(InputError, match="images without a position"):
        write_rtstruct(tmp_path / "rt.dcm", np.ones((1, 6, 7), np.uint8), {1: "a"}, picture)
    series = series_of()
    with pytest.raises(InputError, match=r"no name for ids \[1\]"):
        write_rtstruct(tmp_path / "rt.dcm", np.ones(SHAPE, np.uint8), {2: "a"}, series)
    with pytest.raises(InputError, match="shape"):
        write_rtstruct(tmp_path / "rt.dcm", np.ones((1, 2, 3), np.uint8), {1: "a"}, series)
    for path in (tmp_path / "ct").iterdir():
        dataset = pydicom.dcmread(path)
        del dataset.FrameOfReferenceUID
        dataset.save_as(path)
    assert rtstruct_problem(read_series(tmp_path / "ct")) == "no FrameOfReferenceUID"
    assert not (tmp_path / "rt.dcm").exists()


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools is not installed")
def test_as_the_standard_asks(tmp_path, series_of):
    series = series_of()
    write_rtstruct(tmp_path / "rt.dcm", specks(), {1: "a", 2: "b", 3: "c", 4: "empty"}, series)
    found = subprocess.run(["dciodvfy", tmp_path / "rt.dcm"], capture_output=True, text=True)
    assert "RTStructureSet" in found.stderr
    assert not [line for line in found.stderr.splitlines() if line.startswith("Error")]
