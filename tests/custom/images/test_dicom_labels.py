import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    OphthalmicPhotography8BitImageStorage,
    UltrasoundImageStorage,
)
from scipy.spatial.transform import Rotation

from custom.errors import InputError
from custom.images.dicom import read_series
from custom.images.dicom_labels import label_references, read_seg, write_seg

SHAPE = (5, 6, 7)  # slices, rows, columns
EMPTY = np.zeros(SHAPE, np.int16)
OBLIQUE = Rotation.from_euler("xyz", [20, -15, 10], degrees=True).as_matrix()[:, :2].T
PRONE, SAGITTAL = ((-1, 0, 0), (0, -1, 0)), ((0, 1, 0), (0, 0, -1))
NEEDED = dict.fromkeys(
    ("PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime")
)
NAMES = {1: "liver", 2: "left kidney", 3: "empty"}


@pytest.fixture
def stack(tmp_path, write_stack):
    """Return a function that writes a stack and gives its datasets and the series."""

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
    """Return slices in the order of the datasets in that of the series."""
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


@pytest.mark.parametrize("directions", [((1, 0, 0), (0, 1, 0)), PRONE, SAGITTAL, OBLIQUE])
def test_written_segmentation(tmp_path, stack, directions):
    datasets, series = stack(directions)
    label = series.to_canonical(stored(datasets, series, blobs()))
    path = tmp_path / "seg.dcm"
    write_seg(path, label, NAMES, series)
    assert not list(tmp_path.glob("*.partial"))
    seg = hd.seg.segread(path)
    by_source = seg.get_pixels_by_source_instance(
        [d.SOPInstanceUID for d in datasets], combine_segments=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(by_source, blobs())
    assert [seg.get_segment_description(n).segment_label for n in (1, 2, 3)] == list(NAMES.values())
    assert seg.get_segment_description(1).algorithm_identification[0].AlgorithmName == "MCP-MedSAM"
    assert seg.get_segment_description(1).SegmentAlgorithmName == "MCP-MedSAM"
    assert label_references(path).images == {"1.2.3.4": frozenset(series.sop_uids)}
    assert label_references(path).frames_of_reference == {"1.2.3.5"}
    np.testing.assert_array_equal(read_seg(path, series)[0], label)


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


def test_many_segments(tmp_path, stack):
    datasets, series = stack()
    label = np.arange(1, np.prod(SHAPE) + 1, dtype=np.uint16).reshape(SHAPE) * 2
    names = [f"cell {n}" for n in range(1, label.max() + 1)]
    path = write_by_highdicom(tmp_path / "seg.dcm", datasets, label, "LABELMAP", names=names)
    read, found = read_seg(path, series)
    np.testing.assert_array_equal(read, label)
    assert list(found.values()) == names


def test_headers_that_break_the_standard_a_little(tmp_path, write_stack):
    tilt = {k: {"ImageOrientationPatient": [1, 0, 0, 0, 1, 1e-5 * k]} for k in range(5)}
    write_stack(tmp_path / "ct", EMPTY, edit=tilt.get)  # nor names, dates ...
    for path in (tmp_path / "ct").iterdir():
        dataset = pydicom.dcmread(path)
        del dataset.SliceThickness, dataset.PatientID
        dataset.save_as(path)
    series = read_series(tmp_path / "ct")
    write_seg(tmp_path / "seg.dcm", blobs(), NAMES, series)
    np.testing.assert_array_equal(read_seg(tmp_path / "seg.dcm", series)[0], blobs())


@pytest.mark.parametrize("own", [True, False])
def test_multi_frame_source(tmp_path, write_image, own):
    order = [3, 0, 4, 1, 2]  # position of each frame

    def item(**tags):
        result = Dataset()
        for keyword, value in tags.items():
            setattr(result, keyword, value)
        return result

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
    tags = {"PixelSpacing": [0.1, 0.2]} if spaced else {}
    write_image(tmp_path / "a.dcm", colour, SOPClassUID=kind, Modality="US", **tags)
    series = read_series(tmp_path / "a.dcm")
    label = blobs((2, 6, 7))[1:]
    write_seg(tmp_path / "seg.dcm", label, NAMES, series)
    seg = hd.seg.segread(tmp_path / "seg.dcm")
    np.testing.assert_array_equal(
        seg.get_pixels_by_source_instance(series.sop_uids, combine_segments=True, ignore_spatial_locations=True), label
    )
    np.testing.assert_array_equal(read_seg(tmp_path / "seg.dcm", series)[0], label)
    write_image(tmp_path / "b.dcm", colour, SOPClassUID=kind, Modality="US")
    with pytest.raises(InputError, match="neither a position nor a source image"):
        read_seg(tmp_path / "seg.dcm", read_series(tmp_path / "b.dcm"))


def test_what_cannot_be_written(tmp_path, stack, write_image):
    _, series = stack()
    path = tmp_path / "seg.dcm"
    for label, names, text in (
        (blobs()[1:], NAMES, r"shape \(4, 6, 7\); allowed: \(5, 6, 7\)"),
        (blobs(), {1: "liver"}, r"no name for ids \[2\]"),
        (blobs(), {}, "at least one id"),
        (blobs(), {0: "b", 1: "a", 2: "c"}, "from 1 up"),
        (blobs(), {1: "a" * 65, 2: "b"}, r"names\[1\]: found 65 characters"),
    ):
        with pytest.raises(InputError, match=text):
            write_seg(path, label, names, series)
    write_image(tmp_path / "us.dcm", np.zeros(SHAPE, np.uint8), Modality="US", NumberOfFrames=5)
    with pytest.raises(InputError, match="5 frames without a position"):
        write_seg(path, blobs(), NAMES, read_series(tmp_path / "us.dcm"))
    (tmp_path / "ct" / "1.dcm").unlink()
    with pytest.raises(InputError, match="no such file"):
        write_seg(path, blobs(), NAMES, series)
    assert not path.exists()


def test_headers_without_frame_of_reference(tmp_path, write_stack):
    write_stack(tmp_path / "ct", EMPTY, SOPClassUID=CTImageStorage)
    for file in (tmp_path / "ct").iterdir():
        dataset = pydicom.dcmread(file)
        del dataset.FrameOfReferenceUID
        dataset.save_as(file)
    with pytest.raises(InputError, match="Frame Of Reference"):
        write_seg(tmp_path / "seg.dcm", blobs(), NAMES, read_series(tmp_path / "ct"))
