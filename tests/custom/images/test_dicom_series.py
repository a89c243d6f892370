import nibabel as nib
import numpy as np
import pydicom
import pytest
from imagecodecs import jpeg8_encode
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEGLossless,
    JPEGLosslessSV1,
)
from scipy.spatial.transform import Rotation

from custom.errors import InputError
from custom.images.dicom import DICOM_MODALITIES, read_series
from custom.modalities import MODALITIES

PIXELS = np.random.default_rng(1).integers(0, 2000, (5, 6, 7)).astype(np.int16)  # KxRxC
OBLIQUE = Rotation.from_euler("xyz", [20, -15, 10], degrees=True).as_matrix()[:, :2].T
DIRECTIONS = {
    "axial": ((1, 0, 0), (0, 1, 0)),
    "prone": ((-1, 0, 0), (0, -1, 0)),
    "feet up": ((1, 0, 0), (0, -1, 0)),
    "sagittal": ((0, 1, 0), (0, 0, -1)),
    "coronal": ((1, 0, 0), (0, 0, -1)),
    "oblique": OBLIQUE,
}


# Directions of RAS that are reversed, and the axes of RAS that slices, rows and columns run along.
SEEN = {"sagittal": ((-1, -1, -1), (0, 2, 1)), "coronal": ((-1, -1, -1), (1, 2, 0))}
AXIAL = ((-1, -1, 1), (2, 1, 0))


def closest_canonical(datasets, name):
    """Turn the volume of the tags to RAS by nibabel, then to slices as viewers show them, with their affine."""
    d = datasets[0]
    row, column = np.array(d.ImageOrientationPatient, float).reshape(2, 3)
    first, last = (np.array(datasets[n].ImagePositionPatient, float) for n in (0, -1))
    affine = np.eye(4)
    affine[:3] = np.stack(
        [row * d.PixelSpacing[1], column * d.PixelSpacing[0], (last - first) / (len(datasets) - 1), first], axis=1
    )
    volume = np.stack([pydicom.pixels.pixel_array(d) for d in datasets]).transpose(2, 1, 0)  # KxRxC -> CxRxK
    image = nib.as_closest_canonical(nib.Nifti1Image(volume, np.diag([-1, -1, 1, 1]) @ affine))
    signs, order = SEEN.get(name, AXIAL)
    turn = np.eye(4)
    turn[:3, :3] = np.diag(signs)
    turn[:3, 3] = [n - 1 if sign < 0 else 0 for n, sign in zip(image.shape, signs, strict=True)]
    affine = (image.affine @ turn)[:, [*order[::-1], 3]]
    array = np.asarray(image.dataobj)[tuple(slice(None, None, sign) for sign in signs)].transpose(order)
    return array, affine, np.array(image.header.get_zooms())[list(order)]


@pytest.mark.parametrize("name", DIRECTIONS)
def test_place_and_order(tmp_path, write_stack, name):
    datasets = write_stack(tmp_path, PIXELS, directions=DIRECTIONS[name])
    series = read_series(tmp_path)
    array, affine, spacing = closest_canonical(datasets, name)
    np.testing.assert_array_equal(series.array, array)
    np.testing.assert_allclose(series.spacing, spacing, atol=1e-5)
    np.testing.assert_allclose(series.geometry.canonical_affine, affine, atol=1e-5)
    # The source grid is that of the tags: pixel (column, row) of every slice lies where its file says.
    for k, uid in enumerate(series.sop_uids):
        d = next(d for d in datasets if uid == d.SOPInstanceUID)
        row, column = np.array(d.ImageOrientationPatient, float).reshape(2, 3)
        place = d.ImagePositionPatient + row * d.PixelSpacing[1] * 4 + column * d.PixelSpacing[0] * 2
        np.testing.assert_allclose((series.geometry.affine @ [4, 2, k, 1])[:3], place * [-1, -1, 1], atol=1e-4)
    np.testing.assert_array_equal(series.to_canonical(series.to_slices(series.array)), series.array)


@pytest.mark.parametrize("name", ["axial", "prone", "feet up", "oblique"])
def test_slices_of_axial_stacks_follow_z(tmp_path, write_stack, name):
    datasets = write_stack(tmp_path, PIXELS, directions=DIRECTIONS[name])
    series = read_series(tmp_path)
    heights = {d.SOPInstanceUID: d.ImagePositionPatient[2] for d in datasets}
    assert [heights[uid] for uid in series.sop_uids] == sorted(heights.values())
    by_uid = {d.SOPInstanceUID: np.sort(pydicom.pixels.pixel_array(d), axis=None) for d in datasets}
    for uid, plane in zip(series.sop_uids, series.array, strict=True):
        np.testing.assert_array_equal(np.sort(plane, axis=None), by_uid[uid])


def test_fields(tmp_path, write_stack):
    write_stack(tmp_path / "a", PIXELS, SeriesDescription="chest")
    (tmp_path / "notes.txt").write_text("x" * 300)
    series = read_series(tmp_path)
    assert (series.modality, series.kind, series.unit, series.patient) == ("CT", "CT", "HU", "P1")
    assert (series.uid, series.frame_of_reference, series.description) == ("1.2.3.4", "1.2.3.5", "chest")
    assert len(series.files) == 5 and series.frames == (1,) * 5


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"), [(1, -1024, np.int16), (100, 0, np.int32), (0.5, 3, np.float32), (1, 0, np.int16)]
)
def test_rescale(tmp_path, write_stack, slope, intercept, dtype):
    write_stack(tmp_path, PIXELS, RescaleSlope=slope, RescaleIntercept=intercept)
    series = read_series(tmp_path)
    assert series.array.dtype == dtype
    np.testing.assert_allclose(series.array, PIXELS.astype(float) * slope + intercept)


def test_rescale_of_each_slice(tmp_path, write_stack):
    write_stack(tmp_path, PIXELS, edit=lambda k: {"RescaleSlope": 0.5 + k, "RescaleIntercept": 0})
    expected = PIXELS * (0.5 + np.arange(5))[:, None, None]
    np.testing.assert_allclose(read_series(tmp_path).array, expected)


def groups(k):
    frame = Dataset()
    for keyword, tags in {
        "PlanePositionSequence": {"ImagePositionPatient": [0, 0, 2.5 * k]},
        "PixelValueTransformationSequence": {"RescaleSlope": k + 1, "RescaleIntercept": -10},
    }.items():
        item = Dataset()
        for name, value in tags.items():
            setattr(item, name, value)
        setattr(frame, keyword, [item])
    return frame


def shared_groups():
    frame, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures.PixelSpacing, measures.SliceThickness = [0.7, 0.9], 2.5
    frame.PlaneOrientationSequence, frame.PixelMeasuresSequence = [orientation], [measures]
    return frame


def test_enhanced_multi_frame(tmp_path, write_image):
    order = [3, 0, 4, 1, 2]  # position of each frame
    write_image(
        tmp_path / "a.dcm",
        PIXELS,
        SOPClassUID=EnhancedCTImageStorage,
        NumberOfFrames=5,
        SharedFunctionalGroupsSequence=[shared_groups()],
        PerFrameFunctionalGroupsSequence=[groups(k) for k in order],
    )
    series = read_series(tmp_path / "a.dcm")
    frames = np.argsort(order)
    assert series.frames == tuple(frames + 1) and series.spacing == (2.5, 0.7, 0.9) and len(series.files) == 1
    np.testing.assert_array_equal(series.array, PIXELS[frames] * np.arange(1, 6)[:, None, None] - 10)


def test_single_slices(tmp_path, write_stack):
    write_stack(tmp_path / "axial", PIXELS[:1])
    assert read_series(tmp_path / "axial").geometry.spacing == (1.0, 0.7, 0.9)
    write_stack(tmp_path / "coronal", PIXELS[:1], directions=DIRECTIONS["coronal"])
    series = read_series(tmp_path / "coronal")  # stays a picture, as viewers show it
    assert series.geometry is None and series.spacing == (1.0, 0.7, 0.9)
    np.testing.assert_array_equal(series.array, PIXELS[:1])


def test_pictures(tmp_path, write_image):
    colour = np.random.default_rng(2).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    write_image(tmp_path / "a.dcm", colour, Modality="US")
    series = read_series(tmp_path / "a.dcm")
    np.testing.assert_array_equal(series.array, colour[None])
    assert (series.geometry, series.spacing, series.modality) == (None, None, "US")
    write_image(tmp_path / "b.dcm", PIXELS[0], Modality="DX", ImagerPixelSpacing=[0.1, 0.2])
    assert read_series(tmp_path / "b.dcm").spacing == (1.0, 0.1, 0.2)


@pytest.mark.parametrize("spacing", [[0, 0], [0, 1], [-1, 1]])
def test_spacing_that_is_not_positive_is_none(tmp_path, write_image, spacing):
    """Film scanners write 0."""
    write_image(tmp_path / "a.dcm", PIXELS[0], Modality="CR", PixelSpacing=spacing)
    assert read_series(tmp_path / "a.dcm").spacing is None
    write_image(tmp_path / "a.dcm", PIXELS[0], Modality="CR", PixelSpacing=spacing, ImagerPixelSpacing=[0.1, 0.2])
    assert read_series(tmp_path / "a.dcm").spacing == (1.0, 0.1, 0.2)


def region(kind=1, units=3, x=0.02, y=0.03):
    item = Dataset()
    item.RegionSpatialFormat, item.PhysicalDeltaX, item.PhysicalDeltaY = kind, x, y
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = units
    return item


@pytest.mark.parametrize(
    ("regions", "spacing"),
    [
        ([region()], (1.0, 0.3, 0.2)),
        ([region(), region()], (1.0, 0.3, 0.2)),
        ([region(y=-0.03), region(kind=4, units=4)], (1.0, 0.3, 0.2)),  # besides a spectrum
        ([region(), region(x=0.021)], None),
        ([region(), region(units=0)], None),
        ([region(units=5)], None),
        ([region(x=0)], None),
        ([region(y=float("nan"))], None),
        ([region(kind=2)], None),
        ([], None),
    ],
)
def test_calibration_of_ultrasound(tmp_path, write_image, regions, spacing):
    path = tmp_path / "a.dcm"
    write_image(path, PIXELS[0], Modality="US", SequenceOfUltrasoundRegions=regions)
    assert read_series(path).spacing == (spacing and pytest.approx(spacing))
    write_image(path, PIXELS[0], Modality="US", SequenceOfUltrasoundRegions=regions, PixelSpacing=[0.5, 0.6])
    assert read_series(path).spacing == (1.0, 0.5, 0.6)
    write_image(path, PIXELS, Modality="US", SequenceOfUltrasoundRegions=regions, NumberOfFrames=5)
    assert read_series(path).spacing is None


def test_cine_loop_is_a_stack_of_its_frames(tmp_path, write_image):
    write_image(tmp_path / "a.dcm", PIXELS, Modality="US", NumberOfFrames=5, PixelSpacing=[0.1, 0.2])
    series = read_series(tmp_path / "a.dcm")
    np.testing.assert_array_equal(series.array, PIXELS)
    assert series.geometry is None and series.spacing is None and series.frames == (1, 2, 3, 4, 5)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_monochrome1_is_inverted(tmp_path, write_image, dtype):
    pixels = PIXELS[0].astype(dtype)
    write_image(tmp_path / "a.dcm", pixels, Modality="MG", PhotometricInterpretation="MONOCHROME1", BitsStored=12)
    top = 4095 if dtype == np.uint16 else -1
    np.testing.assert_array_equal(read_series(tmp_path / "a.dcm").array[0], top - pixels)


def test_colour_models():
    kinds = ("rgb_rle", "rgb_jpeg_dcmtk", "ybr_full_422_uncompressed")
    rgb, jpeg, ybr = (read_series(get_testdata_file(f"SC_{kind}.dcm")).array.astype(int) for kind in kinds)
    assert rgb.shape == (1, 100, 100, 3)
    assert np.abs(rgb - jpeg).max() < 8 and np.median(np.abs(rgb - ybr)) < 2  # the same picture, with losses
    palette = read_series(get_testdata_file("examples_palette.dcm")).array
    assert palette.shape == (1, 350, 800, 3) and palette.dtype == np.uint8


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_palette_in_the_byte_order_of_its_file(tmp_path, write_image, syntax):
    dataset = write_image(tmp_path / "a.dcm", np.array([[0, 1], [2, 1]], np.uint8))
    dataset.PhotometricInterpretation = "PALETTE COLOR"
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    for n, colour in enumerate(("Red", "Green", "Blue")):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [3, 0, 16])
        table = np.array([0, 100 + n, 200 + n], f"{order}u2") << 8
        setattr(dataset, f"{colour}PaletteColorLookupTableData", table.astype(f"{order}u2").tobytes())
    dataset.file_meta.TransferSyntaxUID = syntax
    pydicom.dcmwrite(tmp_path / "a.dcm", dataset, little_endian=order == "<", implicit_vr=False)
    array = read_series(tmp_path / "a.dcm").array
    np.testing.assert_array_equal(array, [[[[0, 0, 0], [100, 101, 102]], [[200, 201, 202], [100, 101, 102]]]])


@pytest.mark.parametrize("kind", ["RLE", "jpeg_ls_lossless", "jp2klossless"])
def test_compressed(kind):
    plain = read_series(get_testdata_file("MR_small.dcm")).array
    np.testing.assert_array_equal(read_series(get_testdata_file(f"MR_small_{kind}.dcm")).array, plain)


LOSSLESS = {JPEGLossless: 6, JPEGLosslessSV1: 1}  # transfer syntax -> predictor


def compressed(dataset, path, syntax, content):
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.add_new("PixelData", "OB", encapsulate([content]))
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path, enforce_file_format=True)


@pytest.mark.parametrize(
    ("dtype", "bits"), [(np.uint8, 8), (np.uint16, 12), (np.uint16, 16), (np.int16, 12), (np.int16, 16)]
)
@pytest.mark.parametrize("syntax", LOSSLESS)
def test_lossless_jpeg(tmp_path, write_image, syntax, dtype, bits):
    low = -(2 ** (bits - 1)) if dtype == np.int16 else 0
    pixels = np.random.default_rng(2).integers(low, low + 2**bits, (6, 7)).astype(dtype)
    stored = (pixels.astype(int) & (2**bits - 1)).astype(f"u{pixels.itemsize}")
    content = jpeg8_encode(stored, lossless=True, predictor=LOSSLESS[syntax], bitspersample=bits)
    path = tmp_path / "a.dcm"
    compressed(write_image(path, pixels, BitsStored=bits, HighBit=bits - 1), path, syntax, bytes(content))
    np.testing.assert_array_equal(read_series(path).array[0], pixels)


def test_lossless_jpeg_in_colour(tmp_path, write_image):
    pixels, path = np.random.default_rng(3).integers(0, 256, (6, 7, 3), np.uint8), tmp_path / "a.dcm"
    colours = {"colorspace": "RGB", "outcolorspace": "RGB"}
    content = jpeg8_encode(pixels, lossless=True, predictor=1, **colours)
    compressed(write_image(path, pixels), path, JPEGLosslessSV1, bytes(content))
    np.testing.assert_array_equal(read_series(path).array[0], pixels)


def test_jpeg_of_12_bits():
    array = read_series(get_testdata_file("JPGExtended.dcm")).array
    assert array.shape == (1, 1024, 256) and 255 < array.max() < 4096


@pytest.mark.parametrize("end", [1, 0.9, 0.5, 0.1])
def test_corrupt_jpeg_is_refused(tmp_path, write_image, end):
    """With any decoders installed: one of them crashed the process on such data."""
    content = bytearray(jpeg8_encode(PIXELS[0].astype(np.uint16), lossless=True, predictor=1, bitspersample=16))
    content[content.index(b"\xff\xc4") + 4] = 200  # more codes of a length than there can be
    path = tmp_path / "a.dcm"
    compressed(write_image(path, PIXELS[0]), path, JPEGLosslessSV1, bytes(content[: int(len(content) * end)]))
    with pytest.raises(InputError, match="TransferSyntaxUID: found .*cannot be decoded"):
        read_series(path)


def test_modalities(tmp_path, write_image):
    assert set(DICOM_MODALITIES.values()) == set(MODALITIES)
    for number, (kind, part, ours) in enumerate(
        [("PT", "", "PET"), ("XC", "SKIN", "Dermoscopy"), ("XC", "HEAD", None), ("OT", "", None)]
    ):
        path = tmp_path / f"{number}.dcm"
        write_image(path, PIXELS[0], Modality=kind, BodyPartExamined=part)
        assert read_series(path).modality == ours


TILTED = {k: {"ImagePositionPatient": [10, -20 + 0.5 * k, 30 + 2.5 * k]} for k in range(5)}
BESIDE = {2: {"ImagePositionPatient": [11, -20, 35]}}


@pytest.mark.parametrize(
    ("edits", "text"),
    [
        ({2: None}, r"a gap of 5 mm after slice 2 of 4 \(at \[10\.0, -20\.0, 32\.5\]\); allowed: no missing slice"),
        ({2: {"ImagePositionPatient": [10, -20, 32.5]}}, r"the position of .*\.dcm; allowed: one image at each"),
        ({2: {"ImagePositionPatient": [10, -20, 35.5]}}, r"slice 3 of 5 0\.5 mm off an even grid"),
        (TILTED, r"shifted by 11\.3 degrees .*gantry tilt"),
        (BESIDE, r"slice 3 of 5 lies 1 mm beside the stack"),
        ({2: {"PixelSpacing": [0.7, 0.8]}}, r"PixelSpacing: found \(0\.7, 0\.9\); allowed: \(0\.7, 0\.8\)"),
        ({2: {"ImageOrientationPatient": [0, 1, 0, -1, 0, 0]}}, "ImageOrientationPatient"),
        ({2: {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}}, "two perpendicular unit vectors"),
        ({2: {"ImageOrientationPatient": [1, 0, 0]}}, "allowed: 6 numbers"),
        ({2: {"PixelSpacing": [0, 1]}}, "no place for 1 of 5; allowed: images with .*PixelSpacing"),
        ({2: {"ImagePositionPatient": None}}, "no place for 1 of 5"),
        ({2: {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}}, "LOCALIZER in 1 of 5 images"),
        ({2: {"SeriesInstanceUID": "1.9"}}, "SeriesInstanceUID: found .* allowed: one series"),
        ({2: {"Rows": 3}}, r"Rows, Columns: found \(6, 7\); allowed: \(3, 7\)"),
        ({2: {"Rows": None}}, "allowed: an image"),
    ],
)
def test_uneven_stacks(tmp_path, write_stack, edits, text):
    write_stack(tmp_path, PIXELS, edit=lambda k: edits.get(k, {}))
    with pytest.raises(InputError, match=text):
        read_series(sorted(tmp_path.iterdir()))


def test_rounded_positions_are_even(tmp_path, write_stack):
    write_stack(tmp_path, PIXELS, edit=lambda k: {"ImagePositionPatient": [0, 0, round(k * 0.625, 1)]})
    assert read_series(tmp_path).spacing[0] == pytest.approx(0.625, abs=0.02)


def drop(path, keyword):
    dataset = pydicom.dcmread(path)
    del dataset[keyword]
    dataset.save_as(path)


def test_unreadable_files(tmp_path, write_image):
    path = tmp_path / "a.dcm"
    write_image(path, PIXELS[0])
    drop(path, "PixelData")
    with pytest.raises(InputError, match="PixelData: found nothing"):
        read_series(path)
    write_image(path, PIXELS[0])
    path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.99"))
    with pytest.raises(InputError, match=r"1\.2\.840\.10008\.1\.2\.99"):
        read_series(path)
    write_image(path, PIXELS[0])
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="a readable DICOM file"):
        read_series(path)
    for source, text in (("none.dcm", "no such file"), ([], "no file"), (__file__, "no DICOM image")):
        with pytest.raises(InputError, match=text):
            read_series(source)


def test_no_decoder(tmp_path, write_image):
    path = tmp_path / "a.dcm"
    compressed(write_image(path, PIXELS[0]), path, HTJ2KLossless, b"some bytes")
    with pytest.raises(InputError, match=r"1\.2\.840\.10008\.1\.2\.4\.201 \(High-Throughput"):
        read_series(path)


def test_several_pictures_without_a_place(tmp_path, write_image):
    for name in "ab":
        write_image(tmp_path / name, PIXELS[0], Modality="DX")
    with pytest.raises(InputError, match="no place for 2 of 2"):
        read_series(tmp_path)


def test_tiled_slides_are_refused(tmp_path, write_image):
    write_image(tmp_path / "a", PIXELS, NumberOfFrames=5, TotalPixelMatrixColumns=35)
    with pytest.raises(InputError, match="a tiled image"):
        read_series(tmp_path / "a")
