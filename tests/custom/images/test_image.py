import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy.spatial.transform import Rotation

from custom.errors import InputError
from custom.images.formats import stem
from custom.images.intensity import WINDOWS, to_uint8
from custom.images.reading import image_of_array, read_image

RNG = np.random.default_rng(0)


def rotated(axes=(0, 1, 2), signs=(1, 1, 1), spacing=(0.7, 0.9, 3.0), degrees=12):
    """Affine whose voxel axes run along permuted, reversed and slightly turned directions."""
    turn = Rotation.from_euler("xyz", [degrees, -degrees / 2, degrees / 3], degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.eye(3)[:, list(axes)] @ np.diag(np.array(signs) * np.array(spacing))
    affine[:3, 3] = [10, -20, 30]
    return affine


def save_nifti(path, array, affine):
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def block(shape, box):
    """Zeros with ones in a box x_min y_min [z_min] x_max ..., both ends inside, of an array indexed (x, y[, z])."""
    array, half = np.zeros(shape, np.uint8), len(box) // 2
    array[tuple(slice(a, b + 1) for a, b in zip(box[:half], box[half:], strict=True))] = 1
    return array


def filled(shape, boxes):
    """The same in an array indexed [z], y, x, for boxes of that array."""
    (box,) = boxes.astype(int).tolist()
    return block(shape[::-1], box).transpose()


@pytest.mark.parametrize(("channels", "shape"), [(None, (9, 11)), (3, (9, 11, 3)), (4, (9, 11, 3))])
@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
def test_pictures(tmp_path, channels, shape, ending):
    pixels = RNG.integers(0, 256, (9, 11) if channels is None else (9, 11, channels), np.uint8)
    if ending == ".tif":
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack" if channels is None else "rgb")
    else:
        Image.fromarray(pixels if ending == ".png" or channels is None else pixels[..., :3]).save(
            tmp_path / f"a{ending}"
        )
    image = read_image(tmp_path / f"a{ending}")
    np.testing.assert_array_equal(image.array, pixels if channels is None else pixels[..., :3])
    assert image.array.shape == shape and (image.kind, image.size) == ("picture", (11, 9))
    assert image.format == ("tiff" if ending == ".tif" else "pictures")
    assert image.modality is image.modality_source is image.spacing is image.source_spacing is None
    assert image.to_source(np.ones((9, 11))).shape == (9, 11) and image.to_ijk(np.ones((9, 11))).shape == (11, 9, 1)


def test_deep_grey_is_cut_by_percentiles(tmp_path):
    pixels = RNG.integers(0, 4000, (50, 60)).astype(np.uint16)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = to_uint8(pixels[None], "X-Ray", WINDOWS["soft_tissue"], "")[0]
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").array, expected)
    assert expected.min() == 0 and expected.max() == 255


def test_constant_picture(tmp_path):
    Image.fromarray(np.full((9, 9), 4000, np.uint16)).save(tmp_path / "a.png")
    assert not read_image(tmp_path / "a.png").array.any()


@pytest.mark.parametrize("spacing", [None, (3.0, 0.5, 0.25)])
def test_stack(tmp_path, spacing):
    pixels = RNG.integers(0, 256, (4, 9, 11)).astype(np.uint8)
    known = {} if spacing is None else {"spacing": 3.0, "unit": "mm"}
    resolution = None if spacing is None else (4, 2)
    tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True, resolution=resolution, metadata={"axes": "ZYX", **known})
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.array, pixels)
    assert (image.kind, image.format, image.size, image.spacing) == ("volume", "tiff", (11, 9, 4), spacing)
    assert image.source_spacing == (spacing and spacing[::-1]) and image.slice_name(2) == "z 2"
    np.testing.assert_array_equal(image.boxes_to_array(image.checked_boxes([1, 2, 3, 4, 5, 3])), [[1, 2, 3, 4, 5, 3]])


@pytest.mark.parametrize(
    ("axes", "signs"), [((0, 1, 2), (-1, -1, 1)), ((1, 2, 0), (1, -1, 1)), ((2, 0, 1), (-1, 1, -1))]
)
def test_nifti_volume(tmp_path, axes, signs):
    box = [3, 2, 1, 9, 7, 5]
    affine = rotated(axes, signs)
    path = save_nifti(tmp_path / "a.nii.gz", block((12, 10, 8), box), affine)
    image = read_image(path)
    boxes = image.boxes_to_array(image.checked_boxes(box))
    np.testing.assert_array_equal(image.array, filled(image.array.shape, boxes))
    assert (image.kind, image.size) == ("volume", (12, 10, 8)) and image.source_spacing == (0.7, 0.9, 3.0)
    # each slice is named by its index in the file
    marked = np.zeros((12, 10, 8), np.uint8)
    axis = 2  # its spacing of 3 mm shows the plane of the slices
    np.moveaxis(marked, axis, 0)[2] = 1
    (z,) = np.flatnonzero(image.geometry.canonical(marked).any(axis=(1, 2)))
    assert image.slice_name(z) == f"{'xyz'[axis]} 2"
    flat = [3, 2, 1, 9, 7, 5]
    flat[axis + 3] = flat[axis]  # one slice deep
    turned = image.boxes_to_array(image.checked_boxes(flat))[0]
    assert turned[2] == turned[5] and turned[0] < turned[3] and turned[1] < turned[4]
    with pytest.raises(InputError, match="y_min < y_max"):
        image.checked_boxes([3, 2, 1, 9, 1, 5])


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 0, 2), (0, 2, 1), (1, 2, 0)])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (1, -1, -1)])
@pytest.mark.parametrize("flat", [2, 1])
def test_nifti_slice_is_a_picture(tmp_path, axes, signs, flat):
    shape, box = [12, 10], [3, 2, 9, 7]
    grid = np.expand_dims(block(shape, box), flat)
    affine = rotated(axes, signs)
    image = read_image(save_nifti(tmp_path / "a.nii", grid, affine))
    boxes = image.boxes_to_array(image.checked_boxes(box))
    np.testing.assert_array_equal(image.array, filled(image.array.shape, boxes))
    assert (image.kind, image.size) == ("picture", (12, 10))
    np.testing.assert_array_equal(image.to_source(image.array), grid)
    np.testing.assert_array_equal(image.to_zyx(image.array), grid.squeeze(flat).T)
    full = np.insert(box, [flat, 2 + flat], 0)
    np.testing.assert_array_equal(image.checked_boxes([full]), [box])
    steps = np.delete([0.7, 0.9, 3.0], flat)
    assert image.source_spacing == tuple(steps) and np.prod(image.spacing) == pytest.approx(np.prod(steps))
    # columns run to the left or to the back, rows to the back or down: against right, anterior, superior
    for source_axis in (a for a in range(3) if a != flat):
        places = []
        for n in (1, 2):
            point = np.zeros(grid.shape, np.uint8)
            point[tuple(n if a == source_axis else 0 for a in range(3))] = 1
            places.append(np.argwhere(_picture(image, point))[0])
        direction = affine[:3, source_axis]
        assert (places[1] - places[0]).sum() == -np.sign(direction[np.abs(direction).argmax()])


def _picture(image, grid):
    return image.geometry.canonical(grid)[0]


def test_dicom_series(tmp_path, write_series):
    box = [3, 2, 1, 9, 7, 3]
    slices = block((12, 10, 5), box).transpose(2, 1, 0).astype(np.int16) * 1000
    image = read_image(write_series(tmp_path / "series", slices))
    boxes = image.boxes_to_array(image.checked_boxes(box))
    np.testing.assert_array_equal(image.array, 255 * filled(image.array.shape, boxes) + (image.array == 102) * 102)
    assert (image.kind, image.format, image.size) == ("volume", "dicom", (12, 10, 5))
    assert image.source_spacing == (0.6, 0.8, 2.5) and image.spacing == (2.5, 0.8, 0.6)
    assert (image.modality, image.modality_source) == ("CT", "DICOM")
    assert set(np.unique(image.array)) == {102, 255}  # 0 HU in the window of soft tissue


def test_dicom_file(tmp_path, write_series):
    slices = RNG.integers(-100, 200, (1, 10, 12))
    (path,) = write_series(tmp_path / "series", slices).iterdir()
    plain = path.rename(tmp_path / "1.2.840.77")  # without a known ending
    image = read_image(plain, modality="MR")
    assert (image.kind, image.array.shape, image.size, image.spacing) == ("picture", (10, 12), (12, 10), (0.8, 0.6))
    assert (image.modality, image.modality_source) == ("MR", "argument") and image.array.max() == 255
    np.testing.assert_array_equal(image.checked_boxes([1, 2, 0, 8, 9, 0]), [[1, 2, 8, 9]])
    assert image.checked_boxes([1, 2, 8, 9]).shape == (1, 4)


def test_coronal_dicom_picture_stays_as_stored(tmp_path, write_series):
    slices = RNG.integers(-100, 200, (1, 10, 12))
    folder = write_series(tmp_path / "series", slices, directions=((1.0, 0, 0), (0, 0, -1.0)))
    image = read_image(folder, window=WINDOWS["lung"])
    assert image.geometry is None and image.kind == "picture" and image.spacing == (0.8, 0.6)
    np.testing.assert_array_equal(image.array, to_uint8(slices, "CT", WINDOWS["lung"], "")[0])


@pytest.mark.parametrize(("name", "modality"), [("2D_US_1", "US"), ("2D_XRay_a", "X-Ray"), ("2D_SPECT_1", None)])
def test_modality_of_the_name(tmp_path, name, modality):
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / f"{name}.png")
    image = read_image(tmp_path / f"{name}.png")
    assert (image.modality, image.modality_source) == (modality, modality and "file name")
    assert read_image(tmp_path / f"{name}.png", modality="OCT").modality_source == "argument"


def test_ct_needs_its_name_for_its_window(tmp_path):
    values = RNG.integers(-1000, 2000, (6, 7, 5)).astype(np.int16)
    path = save_nifti(tmp_path / "a.nii.gz", values, np.diag([-1.0, -1, 1, 1]))
    canonical = values.transpose(2, 1, 0)
    for modality, suv_max in (("CT", None), (None, None), ("PET", 500.0)):
        found = read_image(path, modality=modality, window=WINDOWS["bone"], suv_max=suv_max).array
        expected = to_uint8(canonical, modality or "", WINDOWS["bone"], "", suv_max=suv_max)
        np.testing.assert_array_equal(found, expected)


def test_not_a_number_is_background(tmp_path):
    values = np.full((6, 7, 5), 3, np.float32)
    values[1, 2, 3], values[2, 2, 2] = np.nan, 9
    image = read_image(save_nifti(tmp_path / "a.nii.gz", values, np.diag([-1.0, -1, 1, 1])))
    assert image.array[3, 2, 1] == 0 and image.array[2, 2, 2] == 255


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.nii", "a.nii.gz", "a.npz", "a.dcm", "a", "folder"])
@pytest.mark.parametrize("content", [None, b"", b"no image\n" * 20])
def test_unreadable(tmp_path, name, content):
    if name == "folder" and content is not None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_bytes(content)
    elif content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        read_image(tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path / name}: ") and "\n" not in str(error.value)


def test_volume_needs_six_numbers(tmp_path):
    image = read_image(save_nifti(tmp_path / "a.nii.gz", np.ones((6, 7, 5), np.uint8), np.eye(4)))
    with pytest.raises(InputError, match="4 numbers per box for a volume; allowed: .*x_min y_min z_min"):
        image.checked_boxes([[1, 2, 3, 4]])


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/b.png", "b"),
        ("b.c.NII.GZ", "b.c"),
        ("1.2.840", "1.2.840"),
        ("folder/", "folder"),
        ("x.dcm", "x"),
        (".png", ".png"),
    ],
)
def test_stem(path, expected):
    assert stem(path) == expected


def test_boxes_in_millimetres(tmp_path):
    """The corners of a voxel box, converted to mm by the affine, give the same box."""
    affine = rotated((1, 2, 0), (1, -1, 1), degrees=0)
    image = read_image(save_nifti(tmp_path / "a.nii.gz", np.ones((12, 10, 8), np.uint8), affine))
    low, high = (affine @ [*corner, 1] for corner in ([3, 2, 1], [9, 7, 5]))
    world = np.concatenate([np.minimum(low, high)[:3], np.maximum(low, high)[:3]])[None]
    np.testing.assert_allclose(image.boxes_from_world(world), [[3, 2, 1, 9, 7, 5]], atol=1e-6)


def test_boxes_in_millimetres_without_a_grid(tmp_path):
    metadata = {"axes": "ZYX", "spacing": 3.0, "unit": "mm"}
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((4, 9, 11), np.uint8), imagej=True, resolution=(4, 2), metadata=metadata
    )
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_allclose(image.boxes_from_world(np.array([[1, 2, 3, 2, 3, 9]])), [[4, 4, 1, 8, 6, 3]])
    with pytest.raises(InputError, match="array: spacing: found no spacing"):
        image_of_array(np.zeros((4, 5), np.uint8)).boxes_from_world(np.array([[1, 2, 3, 4]]))


@pytest.mark.parametrize(
    ("shape", "kind", "size"),
    [
        ((9, 11), "picture", (11, 9)),
        ((9, 11, 3), "picture", (11, 9)),
        ((9, 11, 4), "picture", (11, 9)),
        ((4, 9, 11), "volume", (11, 9, 4)),
        ((4, 9, 11, 3), "volume", (11, 9, 4)),
    ],
)
def test_arrays(shape, kind, size):
    image = image_of_array(RNG.integers(0, 4000, shape).astype(np.int16), modality="mri")
    assert (image.kind, image.size, image.modality, image.array.dtype) == (kind, size, "MR", np.uint8)
    labels = np.ones(image.array.shape[: 2 if kind == "picture" else 3], np.uint8)
    assert image.to_source(labels).shape == shape[: labels.ndim]


@pytest.mark.parametrize("shape", [(), (3,), (0, 4), (4, 5, 6, 2), (2, 3, 4, 5, 6)])
def test_arrays_of_other_shapes(shape):
    with pytest.raises(InputError, match="array: shape: found"):
        image_of_array(np.zeros(shape, np.uint8))
