import numpy as np
import pytest
import SimpleITK as sitk

from custom.errors import InputError
from custom.images.formats import format_of, metaimage, nrrd
from custom.images.geometry import Geometry
from custom.images.image import Image

RNG = np.random.default_rng(0)
OBLIQUE = (0, 0.6, -0.8, -1, 0, 0, 0, 0.8, 0.6)
ENDINGS = ("nrrd", "nhdr", "mha", "mhd")
PLACE = ("GetOrigin", "GetSpacing", "GetDirection", "GetSize")


def saved(path, array, *, vector=False, compress=True):
    """Write an array, KxJxI[xC], with SimpleITK somewhere in space."""
    image = sitk.GetImageFromArray(array, isVector=vector)
    if image.GetDimension() == 3:
        image.SetOrigin((-12.5, 40.25, 7.125))
        image.SetSpacing((0.7, 0.8, 1.1))
        image.SetDirection(OBLIQUE)
    sitk.WriteImage(image, str(path), useCompression=compress)
    return str(path)


def read(path, **choice):
    return format_of(path).read(str(path), **choice)


def written(folder, image, labels):
    module = nrrd if image.format == "nrrd" else metaimage
    path = folder / f"mask{module.mask_ending(image)}"
    module.write_mask(path, labels[0] if image.kind == "picture" else labels, {}, image)
    return sitk.ReadImage(str(path))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "int64", "float32", "float64"])
def test_there_and_back(tmp_path, ending, compress, dtype):
    stored = RNG.integers(0, 99, (5, 4, 3)).astype(dtype)
    image = read(saved(tmp_path / f"v.{ending}", stored, compress=compress))
    assert image.kind == "volume" and image.array.dtype == ("float32" if dtype == "float64" else dtype)
    np.testing.assert_array_equal(image.to_source(image.array), stored)
    source = sitk.ReadImage(str(tmp_path / f"v.{ending}"))
    for index in ((0, 0, 0), (2, 1, 4)):
        place = np.array(source.TransformIndexToPhysicalPoint(index)) * (-1, -1, 1)
        np.testing.assert_allclose((image.geometry.affine @ (*index, 1))[:3], place, atol=1e-9)
    mask = written(tmp_path, image, (image.array > 50).astype(np.uint8))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), stored > 50)
    for name in PLACE:
        np.testing.assert_allclose(getattr(mask, name)(), getattr(source, name)(), atol=1e-12)


@pytest.mark.parametrize("ending", ENDINGS)
def test_flat_file_gets_a_flat_mask(tmp_path, ending):
    stored = RNG.integers(0, 999, (4, 3)).astype(np.int16)
    flat = sitk.GetImageFromArray(stored)
    flat.SetOrigin((5, 6))
    flat.SetSpacing((0.25, 0.5))
    flat.SetDirection((0, -1, 1, 0))
    sitk.WriteImage(flat, str(tmp_path / f"v.{ending}"))
    image = read(tmp_path / f"v.{ending}")
    assert image.kind == "picture" and image.geometry.shape == (3, 4, 1) and image.stored_shape == (4, 3)
    np.testing.assert_array_equal(image.to_source(image.array[0]), stored)
    mask = written(tmp_path, image, image.array.astype(np.uint16))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), stored)
    for name in PLACE:
        assert getattr(mask, name)() == getattr(flat, name)()


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("shape", [(5, 4, 3, 3), (5, 4, 3, 4), (4, 3, 3)])
def test_colours(tmp_path, ending, shape):
    stored = RNG.integers(0, 255, shape).astype(np.uint8)
    path = saved(tmp_path / f"v.{ending}", stored, vector=True)
    image = read(path)
    assert image.array.shape[3:] == shape[-1:] and image.notes == {}
    for channel in range(shape[-1]):
        values = image.array[..., channel]
        values = values[0] if image.kind == "picture" else values
        np.testing.assert_array_equal(image.to_source(values), stored[..., channel])
    with pytest.raises(InputError, match="label: found . channels"):
        read(path, labels=True)
    with pytest.raises(InputError, match="frame: found 1 of 1"):
        read(path, frame=1)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(("shape", "axis"), [((6, 5, 4, 3), 0), ((5, 4, 3, 6), 3), ((5, 4, 3, 2), 3), ((4, 3, 6), 2)])
def test_frames(tmp_path, ending, shape, axis):
    """Volumes along the fourth axis, or numbers of a pixel that are not colours."""
    stored = RNG.integers(0, 255, shape).astype(np.uint8)
    path = saved(tmp_path / f"v.{ending}", stored, vector=axis > 0)
    count = shape[axis]
    for frame in (0, count - 1):
        image = read(path, frame=frame)
        expected = np.take(stored, frame, axis)
        labels = image.array[0] if image.kind == "picture" else image.array
        np.testing.assert_array_equal(image.to_source(labels), expected)
        assert image.notes == {"frame": frame}
        mask = written(tmp_path, image, image.array)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), expected)
    for frame, found in ((None, f"4D with {count} volumes"), (count, f"{count} of {count}")):
        with pytest.raises(InputError, match=f"frame: found {found}; allowed: frame 0 to {count - 1}"):
            read(path, frame=frame)
    with pytest.raises(InputError, match="series"):
        read(path, frame=0, series="1")


@pytest.mark.parametrize("ending", ["nrrd", "mha"])
@pytest.mark.parametrize("other", [None, (3, 4, 1), (3, 1, 4)])
def test_mask_of_another_format(tmp_path, ending, other):
    affine = np.array([[0, -0.6, 1.6, 5], [-0.8, 0, 0, 6], [0, -0.8, -1.2, -7], [0, 0, 0, 1.0]])
    geometry = Geometry(affine, other or (3, 4, 5))
    stored = RNG.integers(0, 999, geometry.shape).astype(np.uint16)
    array = geometry.canonical(stored)
    image = Image(
        path="a",
        format="nifti",
        array=array[0] if other else array,
        kind="picture" if other else "volume",
        geometry=geometry,
        stored_shape=geometry.shape[:2] if other else None,
    )
    module = {"nrrd": nrrd, "mha": metaimage}[ending]
    contents = []
    for _ in range(2):
        module.write_mask(tmp_path / f"m.{ending}", image.array, {}, image)
        contents.append((tmp_path / f"m.{ending}").read_bytes())
    assert contents[0] == contents[1] and len(list(tmp_path.iterdir())) == 1
    mask = sitk.ReadImage(str(tmp_path / f"m.{ending}"))
    assert mask.GetPixelID() == sitk.sitkUInt16
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), stored.T)
    place = (affine @ (2, 0, 0, 1))[:3] * (-1, -1, 1)
    np.testing.assert_allclose(mask.TransformIndexToPhysicalPoint((2, 0, 0)), place, atol=1e-9)


def test_mask_of_a_picture(tmp_path):
    array = RNG.integers(0, 9, (4, 6)).astype(np.uint8)
    image = Image(path="a.png", format="pictures", array=array, kind="picture", spacing=(0.5, 0.25))
    metaimage.write_mask(tmp_path / "m.mha", array, {}, image)
    mask = sitk.ReadImage(str(tmp_path / "m.mha"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), array[None])
    assert mask.GetSpacing() == (0.25, 0.5, 1.0) and mask.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)


def test_names_of_segments(tmp_path):
    image = read(saved(tmp_path / "v.nrrd", np.ones((4, 3, 2), np.uint8)))
    nrrd.write_mask(tmp_path / "m.nrrd", image.array, {1: "left kidney", 7: "Größe\n=: x"}, image)
    mask = sitk.ReadImage(str(tmp_path / "m.nrrd"))
    facts = {key: mask.GetMetaData(key) for key in mask.GetMetaDataKeys() if key.startswith("Segment")}
    assert facts["Segment0_Name"] == "left kidney" and facts["Segment0_LabelValue"] == "1"
    assert facts["Segment1_Name"] == "Größe\n=: x" and facts["Segment1_LabelValue"] == "7"
    assert facts["Segment1_ID"] == "Segment_7" and facts["Segment1_Extent"] == "0 1 0 2 0 3"


@pytest.mark.parametrize("ending", ["nrrd", "mha"])
def test_mask_that_cannot_be_written(tmp_path, ending):
    image = read(saved(tmp_path / "v.nrrd", np.ones((4, 3, 2), np.uint8)))
    module = {"nrrd": nrrd, "mha": metaimage}[ending]
    with pytest.raises(OSError, match="none"):
        module.write_mask(tmp_path / "none" / f"m.{ending}", image.array, {}, image)


def test_labels(tmp_path):
    ids = np.full((5, 4, 3), 2.0**24 + 1)
    assert (read(saved(tmp_path / "l.nrrd", ids), labels=True).array == 2**24 + 1).all()
    with pytest.raises(InputError, match="fractions"):
        read(saved(tmp_path / "l.mha", ids / 2), labels=True)


def test_warnings_of_itk_are_shown_again_afterwards(tmp_path):
    path = saved(tmp_path / "v.nrrd", np.zeros((5, 4, 3), np.uint8))
    for shown in (True, False):
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)
        read(path)
        assert sitk.ProcessObject.GetGlobalWarningDisplay() is shown
    sitk.ProcessObject.SetGlobalWarningDisplay(True)
