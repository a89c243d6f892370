import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage
from scipy.spatial.transform import Rotation
from skimage.draw import polygon2mask

from custom.errors import InputError
from custom.images.dicom import read_series
from custom.images.dicom_rtstruct import fill_outlines, read_rtstruct

SHAPE = (5, 30, 40)  # slices, rows, columns
OBLIQUE = Rotation.from_euler("xyz", [20, -15, 10], degrees=True).as_matrix()[:, :2].T
AXIAL, PRONE = ((1, 0, 0), (0, 1, 0)), ((-1, 0, 0), (0, -1, 0))


@pytest.fixture
def series_of(tmp_path, write_stack):
    def make(directions=AXIAL, **tags):
        write_stack(tmp_path / "ct", np.zeros(SHAPE, np.int16), directions=directions, **tags)
        return read_series(tmp_path / "ct")

    return make


def item(**tags):
    result = Dataset()
    for keyword, value in tags.items():
        setattr(result, keyword, value)
    return result


def write_structures(path, series, structures, frame="1.2.3.5", geometric="CLOSED_PLANAR"):
    """Write {name: [(slice, (n, 2) rows and columns)]}; ROI numbers run from 5 down and the contours from 5 up."""
    rois, contours = [], []
    for number, (name, outlines) in zip(range(5, 0, -1), structures.items(), strict=False):
        rois.append(item(ROINumber=number, ROIName=name, ReferencedFrameOfReferenceUID=frame))
        sequence = []
        for z, points in outlines:
            rows, columns = np.asarray(points, float).T
            index = np.stack([columns, rows, np.broadcast_to(z, rows.shape), np.ones(len(rows))])
            mm = (series.geometry.affine @ index)[:3].T * [-1, -1, 1]
            sequence.append(item(ContourGeometricType=geometric, ContourData=[f"{x:.8f}" for x in mm.ravel()]))
        contours.insert(0, item(ReferencedROINumber=number, ContourSequence=sequence))
    dataset = item(
        SOPClassUID=RTStructureSetStorage,
        SOPInstanceUID="1.2.7",
        SeriesInstanceUID="1.2.8",
        Modality="RTSTRUCT",
        StructureSetROISequence=rois,
        ROIContourSequence=contours,
    )
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = RTStructureSetStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.7"
    dataset.save_as(path, enforce_file_format=True)
    return path


def rectangle(top, left, bottom, right):
    return [(top, left), (top, right), (bottom, right), (bottom, left)]


def circle(row, column, radius, count=60):
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([row + radius * np.sin(angle), column + radius * np.cos(angle)], axis=1)


@pytest.mark.parametrize("directions", [AXIAL, PRONE, OBLIQUE, ((0, 1, 0), (0, 0, -1))])
def test_outlines_in_mm(tmp_path, series_of, directions):
    series = series_of(directions)
    outlines = {"box": [(1, rectangle(3, 4, 9, 12))], "disc": [(3, circle(14.2, 20.7, 7.9))]}
    label, names = read_rtstruct(write_structures(tmp_path / "rt.dcm", series, outlines), series)
    expected = np.zeros(SHAPE, np.uint8)
    expected[1, 3:10, 4:13] = 1  # outlines through pixel centres keep them
    expected[3][polygon2mask(SHAPE[1:], circle(14.2, 20.7, 7.9))] = 2
    np.testing.assert_array_equal(series.to_slices(label), expected)
    assert names == {1: "box", 2: "disc"} and label.dtype == np.uint8 and label.shape == series.array.shape


def test_holes_parts_and_planes(tmp_path, series_of):
    series = series_of()
    hole, part = rectangle(5.5, 6.5, 7.5, 9.5), rectangle(20, 20, 22, 23)
    twice = [(3.3, rectangle(2, 2, 8, 8)), (2.9, rectangle(6, 6, 12, 12))]  # nearest to the same slice, no hole
    outlines = {"a": [(1, rectangle(3, 4, 9, 12)), (1, hole), (1, part), *twice]}
    label, _ = read_rtstruct(write_structures(tmp_path / "rt.dcm", series, outlines), series)
    expected = np.zeros(SHAPE, np.uint8)
    expected[1, 3:10, 4:13] = expected[1, 20:23, 20:24] = expected[3, 2:9, 2:9] = expected[3, 6:13, 6:13] = 1
    expected[1, 6:8, 7:10] = 0
    np.testing.assert_array_equal(label, expected)


def test_keyhole(tmp_path, series_of):
    series = series_of()
    keyhole = [(2, 2), (2, 20), (20, 20), (20, 2), (2.4, 2), (8.5, 8.5), (15.5, 8.5), (15.5, 15.5), (8.5, 15.5)]
    keyhole += [(8.5, 8.5), (2.4, 2)]
    path = write_structures(tmp_path / "rt.dcm", series, {"a": [(0, keyhole)]})
    expected = np.zeros(SHAPE, np.uint8)
    expected[0, 2:21, 2:21] = 1
    expected[0, 9:16, 9:16] = 0
    np.testing.assert_array_equal(read_rtstruct(path, series)[0], expected)


def test_smaller_structure_on_top_and_others_left_out(tmp_path, series_of):
    series = series_of()
    outlines = {"small": [(2, rectangle(5, 5, 8, 8))], "body": [(2, rectangle(0, 0, 29, 39))], "point": []}
    label, names = read_rtstruct(write_structures(tmp_path / "rt.dcm", series, outlines), series)
    assert names == {1: "small", 2: "body"}
    assert (label[2] == 1).sum() == 16 and (label[2] == 2).sum() == 30 * 40 - 16


def test_ends_of_the_stack_and_of_the_image(tmp_path, series_of):
    series = series_of()
    outlines = {
        "a": [(-0.49, rectangle(-9, -9, 3, 3)), (4.49, rectangle(25, 35, 99, 99)), (2, rectangle(50, 0, 60, 9))]
    }
    label, _ = read_rtstruct(write_structures(tmp_path / "rt.dcm", series, outlines), series)
    expected = np.zeros(SHAPE, np.uint8)
    expected[0, :4, :4] = expected[4, 25:, 35:] = 1
    np.testing.assert_array_equal(label, expected)


@pytest.mark.parametrize(
    ("outlines", "changes", "text"),
    [
        ({"a": [(4.6, rectangle(1, 1, 4, 4))]}, {}, r"outline of 'a' at slice number 4\.6; allowed: -0\.5 to 4\.5"),
        ({"a": [([1, 1, 2, 2], rectangle(1, 1, 4, 4))]}, {}, "'a' that spans 1 slices"),
        ({"a": [(1, rectangle(1, 1, 4, 4))]}, {"frame": "1.9"}, r"UID of 'a': found 1\.9; allowed: 1\.2\.3\.5"),
        ({"a": [(1, rectangle(1, 1, 4, 4))]}, {"geometric": "OPEN_PLANAR"}, "no closed outlines"),
        ({}, {}, "no closed outlines"),
    ],
)
def test_what_cannot_be_filled(tmp_path, series_of, outlines, changes, text):
    series = series_of()
    path = write_structures(tmp_path / "rt.dcm", series, outlines, **changes)
    with pytest.raises(InputError, match=text):
        read_rtstruct(path, series)


def test_pictures_have_no_place_for_outlines(tmp_path, series_of, write_image):
    path = write_structures(tmp_path / "rt.dcm", series_of(), {"a": [(1, rectangle(1, 1, 4, 4))]})
    write_image(tmp_path / "us.dcm", np.zeros((6, 7), np.uint8))
    with pytest.raises(InputError, match="images without a position"):
        read_rtstruct(path, read_series(tmp_path / "us.dcm"))


def test_fill_equals_a_test_of_every_pixel():
    generator = np.random.default_rng(0)
    for _ in range(20):
        outline = generator.uniform(-5, 45, (9, 2))  # crosses itself and the border
        (row, column), mask = fill_outlines([outline], SHAPE[1:])
        whole = np.zeros(SHAPE[1:], bool)
        whole[row : row + mask.shape[0], column : column + mask.shape[1]] = mask
        shifted = [polygon2mask(SHAPE[1:], outline + (r, c)) for r in (-0.01, 0.01) for c in (-0.01, 0.01)]
        np.testing.assert_array_equal(whole, np.any(shifted, axis=0))
