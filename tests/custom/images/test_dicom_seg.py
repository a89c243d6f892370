import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes
from scipy.spatial.transform import Rotation

from custom.errors import InputError
from custom.images.dicom import read_series
from custom.images.dicom_seg import read_seg

SHAPE = (5, 6, 7)  # slices, rows, columns
EMPTY = np.zeros(SHAPE, np.int16)
OBLIQUE = Rotation.from_euler("xyz", [20, -15, 10], degrees=True).as_matrix()[:, :2].T
PRONE, SAGITTAL = ((-1, 0, 0), (0, -1, 0)), ((0, 1, 0), (0, 0, -1))
NEEDED = dict.fromkeys(
    ("PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime")
)


@pytest.fixture
def stack(tmp_path, write_stack):
    """Return a function that writes a stack and returns its datasets and the series."""

    def make(directions=((1, 0, 0), (0, 1, 0)), pixels=EMPTY, **tags):
        datasets = write_stack(tmp_path / "ct", pixels, directions=directions, **(NEEDED | tags))
        return datasets, read_series(tmp_path / "ct")

    return make


def blobs(shape=SHAPE):
    """Return a label map with ids 1 and 2 and an empty first slice, as stored."""
    label = np.random.default_rng(3).integers(0, 3, shape).astype(np.uint8)
    label[0] = 0
    return label


def describe(number, name):
    return hd.seg.SegmentDescription(number, name, codes.SCT.Tissue, codes.SCT.Tissue, "MANUAL")


def write_by_highdicom(path, datasets, pixels, kind="BINARY", names=("liver", "left kidney"), **options):
    seg = hd.seg.Segmentation(
        source_images=datasets,
        pixel_array=pixels,
        segmentation_type=kind,
        segment_descriptions=[describe(number, name) for number, name in enumerate(names, 1)],
        series_instance_uid=hd.UID(),
        series_number=2,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="m",
        manufacturer_model_name="m",
        software_versions="1",
        device_serial_number="1",
        **options,
    )
    seg.save_as(path)
    return path


def stored(datasets, series, label):
    """Return slices, given in the order of the datasets, in the order of the series."""
    uids = [dataset.SOPInstanceUID for dataset in datasets]
    return label[[uids.index(uid) for uid in series.sop_uids]]


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP", "FRACTIONAL"])
@pytest.mark.parametrize("directions", [((1, 0, 0), (0, 1, 0)), PRONE, SAGITTAL, OBLIQUE])
def test_read(tmp_path, stack, kind, directions):
    datasets, series = stack(directions)
    label = blobs()
    path = write_by_highdicom(tmp_path / "seg.dcm", datasets, label, kind)
    read, names = read_seg(path, series)
    np.testing.assert_array_equal(series.to_slices(read), stored(datasets, series, label))
    assert read.shape == series.array.shape and read.dtype == np.uint8
    assert names == {1: "liver", 2: "left kidney"}


@pytest.mark.parametrize("size", [(143, 161), (99, 98), (3, 5)])
@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP", "FRACTIONAL"])
def test_frames_that_begin_within_a_byte(tmp_path, stack, kind, size):
    shape = (3, *size)
    datasets, series = stack(pixels=np.zeros(shape, np.int16))
    path = write_by_highdicom(tmp_path / "seg.dcm", datasets, blobs(shape), kind)
    np.testing.assert_array_equal(series.to_slices(read_seg(path, series)[0]), stored(datasets, series, blobs(shape)))


def test_cut_off(tmp_path, stack):
    datasets, series = stack()
    path = write_by_highdicom(tmp_path / "seg.dcm", datasets, blobs())
    seg = pydicom.dcmread(path)
    seg.PixelData = seg.PixelData[:-8]
    seg.save_as(path)
    with pytest.raises(InputError, match="a readable DICOM SEG"):
        read_seg(path, series)


def test_half_of_the_maximum_belongs(tmp_path, stack):
    datasets, series = stack()
    fractions = np.linspace(0, 1, np.prod(SHAPE)).reshape(SHAPE)[..., None]
    path = write_by_highdicom(
        tmp_path / "seg.dcm", datasets, fractions, "FRACTIONAL", names=["liver"], max_fractional_value=200
    )
    np.testing.assert_array_equal(read_seg(path, series)[0], np.around(fractions[..., 0] * 200) >= 100)


def test_smaller_segment_on_top(tmp_path, stack):
    datasets, series = stack()
    pixels = np.zeros((*SHAPE, 3), np.uint8)
    pixels[1:3, 1:3, 1:3, 0] = 1
    pixels[1:4, 1:5, 1:5, 1] = 1
    pixels[2, 2, 1:6, 2] = 1
    path = write_by_highdicom(tmp_path / "seg.dcm", datasets, pixels, names=["small", "large", "thin"])
    expected = np.zeros(SHAPE)
    for segment in (1, 0, 2):
        expected[pixels[..., segment] == 1] = segment + 1
    np.testing.assert_array_equal(read_seg(path, series)[0], expected)


def test_turned_and_cropped_segmentation(tmp_path, stack):
    label = blobs()
    label[:, :2] = 0
    datasets, series = stack(OBLIQUE, label.astype(np.int16))
    volume = hd.get_volume_from_series(datasets)
    turned = volume.astype(np.uint8).flip_spatial([0, 1]).swap_spatial_axes(1, 2)[:, :, :4]
    path = write_by_highdicom(tmp_path / "seg.dcm", datasets, turned)
    assert label.any() and hd.seg.segread(path).Columns == 4
    np.testing.assert_array_equal(read_seg(path, series)[0], series.array)


def test_other_places_are_refused(tmp_path, stack, write_stack):
    datasets, series = stack()
    path = write_by_highdicom(tmp_path / "seg.dcm", datasets, blobs())
    for tags, text in (
        ({"FrameOfReferenceUID": "1.9"}, "FrameOfReferenceUID: found 1.2.3.5; allowed: 1.9"),
        ({"first": (10.4, -20, 30)}, "0.444 voxels off"),
        ({"gap": 2.7}, "voxels off"),
        ({"spacing": (0.7, 0.8)}, "voxels off"),
        ({"first": (10, -20, 50)}, "foreground outside of the series"),
    ):
        write_stack(tmp_path / text[:9], EMPTY, **tags)
        with pytest.raises(InputError, match=text):
            read_seg(path, read_series(tmp_path / text[:9]))
        for file in (tmp_path / text[:9]).iterdir():
            file.unlink()
    for source, text in ((series.files[0], "allowed: a DICOM SEG"), (tmp_path / "none", "no such file")):
        with pytest.raises(InputError, match=text):
            read_seg(source, series)


def test_many_segments(tmp_path, stack):
    datasets, series = stack()
    label = np.arange(1, np.prod(SHAPE) + 1, dtype=np.uint16).reshape(SHAPE) * 2
    names = [f"cell {n}" for n in range(1, label.max() + 1)]
    path = write_by_highdicom(tmp_path / "seg.dcm", datasets, label, "LABELMAP", names=names)
    read, found = read_seg(path, series)
    np.testing.assert_array_equal(read, label)
    assert list(found.values()) == names
