import gzip
import itertools

import nibabel as nib
import numpy as np
import pytest

from custom.errors import InputError
from custom.images.geometry import Geometry
from custom.images.nifti import is_nifti, read_nifti, read_nifti_label, write_nifti

RNG = np.random.default_rng(0)
TURNS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))
TILT = np.array([[0.96, -0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, 1.0]]) @ [[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]]


def turned_affine(order, signs, tilt, steps=(0.7, 1.1, 2.1)):
    """Return an affine whose voxel axis k runs along the world axis order[k], with those steps in mm."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for k, world in enumerate(order):
        affine[world, k] = signs[k] * steps[k]
    affine[:3, :3] = tilt @ affine[:3, :3]
    affine[:3, 3] = (-12.5, 40.25, 7.125)
    return affine


@pytest.mark.parametrize("tilt", [np.eye(3), TILT], ids=["straight", "oblique"])
@pytest.mark.parametrize(("order", "signs"), TURNS)
def test_every_orientation_there_and_back(tmp_path, order, signs, tilt):
    stored = RNG.permutation(60).reshape(3, 4, 5).astype(np.int16)
    nib.save(nib.Nifti1Image(stored, turned_affine(order, signs, tilt)), tmp_path / "v.nii")
    array, geometry = read_nifti(tmp_path / "v.nii")

    upright = nib.as_closest_canonical(nib.load(tmp_path / "v.nii"))  # right, anterior, superior
    expected = np.asarray(upright.dataobj)[::-1, ::-1].transpose(2, 1, 0)
    np.testing.assert_array_equal(array, expected)
    assert array.dtype == np.int16 and array.flags.c_contiguous
    np.testing.assert_allclose(geometry.spacing, nib.affines.voxel_sizes(upright.affine)[::-1], atol=1e-6)

    z, y, x = 2, 1, 1  # the same voxel is at the same place
    i, j, k = np.argwhere(stored == array[z, y, x])[0]
    np.testing.assert_allclose(geometry.canonical_affine @ (x, y, z, 1), geometry.affine @ (i, j, k, 1), atol=1e-9)

    write_nifti(tmp_path / "w.nii.gz", array, geometry)
    written, source = nib.load(tmp_path / "w.nii.gz"), nib.load(tmp_path / "v.nii")
    np.testing.assert_array_equal(np.asarray(written.dataobj), stored)
    np.testing.assert_array_equal(written.affine, source.affine)
    np.testing.assert_allclose(written.get_qform(), source.affine, atol=2e-5)
    np.testing.assert_allclose(written.header.get_zooms(), source.header.get_zooms(), rtol=1e-6)
    assert written.get_data_dtype() == np.int16


@pytest.mark.parametrize("tilt", [np.eye(3), TILT], ids=["straight", "oblique"])
@pytest.mark.parametrize(("order", "signs"), TURNS)
def test_thick_slices_keep_their_plane(tmp_path, order, signs, tilt):
    stored = RNG.permutation(60).reshape(3, 4, 5).astype(np.int16)
    nib.save(nib.Nifti1Image(stored, turned_affine(order, signs, tilt, steps=(0.7, 1.1, 3.3))), tmp_path / "v.nii")
    array, geometry = read_nifti(tmp_path / "v.nii")
    upright = np.asarray(nib.as_closest_canonical(nib.load(tmp_path / "v.nii")).dataobj)  # right, anterior, superior
    sagittal, coronal = upright[::-1, ::-1, ::-1].transpose(0, 2, 1), upright[::-1, ::-1, ::-1].transpose(1, 2, 0)
    axial = upright[::-1, ::-1].transpose(2, 1, 0)
    np.testing.assert_array_equal(array, (sagittal, coronal, axial)[order[2]])
    assert geometry.canonical_shape == array.shape and geometry.spacing[0] == 3.3
    np.testing.assert_array_equal(geometry.restore(array), stored)


def test_axes_of_a_known_volume(tmp_path):
    """Brightness grows to the right by 1, to the front by 10 and upwards by 100."""
    right, front, up = np.indices((3, 4, 5))
    nib.save(
        nib.Nifti1Image((right + 10 * front + 100 * up).astype(np.int16), np.diag((1, 2, 4, 1))), tmp_path / "v.nii"
    )
    array, geometry = read_nifti(tmp_path / "v.nii")
    z, y, x = np.ix_(np.arange(5), np.arange(3, -1, -1), np.arange(2, -1, -1))
    np.testing.assert_array_equal(array, x + 10 * y + 100 * z)
    assert geometry.spacing == (4.0, 2.0, 1.0) and geometry.shape == (3, 4, 5)


@pytest.mark.parametrize(
    ("stored", "read"), [("uint8", "uint8"), ("int32", "int32"), (">i2", "int16"), ("float32", "float32")]
)
def test_dtypes(tmp_path, stored, read):
    values = RNG.integers(0, 99, (4, 5, 6)).astype(stored)
    header = nib.Nifti1Header(endianness=stored[0] if stored[0] in "<>" else "<")
    header.set_data_dtype(stored)
    nib.save(nib.Nifti1Image(values, np.diag((-1, -1, 1, 1)), header), tmp_path / "v.nii")
    array, _ = read_nifti(tmp_path / "v.nii")
    assert array.dtype == np.dtype(read) and array.dtype.isnative
    np.testing.assert_array_equal(array, values.transpose(2, 1, 0))


def test_shapes_and_scaling(tmp_path):
    volume = nib.Nifti1Image(RNG.integers(0, 99, (4, 5, 1, 1)).astype(np.int16), np.diag((-1, -1, 1, 1)))
    volume.header.set_slope_inter(2.0, 1.0)
    nib.save(volume, tmp_path / "a.nii")
    array, geometry = read_nifti(tmp_path / "a.nii")
    assert array.shape == (1, 5, 4) and array.dtype == np.float32 and geometry.shape == (4, 5, 1)
    np.testing.assert_array_equal(array[0].T, nib.load(tmp_path / "a.nii").get_fdata()[..., 0, 0])


def test_flat_file(tmp_path):
    flat = RNG.integers(0, 99, (4, 5)).astype(np.uint8)
    nib.save(nib.Nifti1Image(flat, np.diag((-1, -1, 1, 1))), tmp_path / "a.nii")
    array, geometry = read_nifti(tmp_path / "a.nii")
    np.testing.assert_array_equal(array, flat.T[None])
    assert geometry.shape == (4, 5, 1)


def test_channels_of_a_4d_file(tmp_path):
    volumes = RNG.integers(0, 99, (3, 4, 5, 2)).astype(np.int16)
    nib.save(nib.Nifti1Image(volumes, np.diag((-1, -1, 1, 1))), tmp_path / "v.nii.gz")
    for channel in (0, 1):
        array, geometry = read_nifti(tmp_path / "v.nii.gz", channel=channel)
        np.testing.assert_array_equal(array, volumes[..., channel].transpose(2, 1, 0))
        assert geometry.shape == (3, 4, 5)
    for channel in (None, 2):
        with pytest.raises(InputError, match="shape"):
            read_nifti(tmp_path / "v.nii.gz", channel=channel)


def test_a_3d_file_has_one_channel(tmp_path):
    nib.save(nib.Nifti1Image(np.ones((3, 4, 5), np.uint8), np.eye(4)), tmp_path / "v.nii")
    assert read_nifti(tmp_path / "v.nii", channel=0)[0].shape == (5, 4, 3)
    with pytest.raises(InputError, match="at least 2 volumes"):
        read_nifti(tmp_path / "v.nii", channel=1)


def test_no_orientation_is_nibabels_default(tmp_path):
    nib.save(nib.Nifti1Image(np.ones((3, 4, 5), np.uint8), None), tmp_path / "v.nii")
    volume = nib.load(tmp_path / "v.nii")
    assert volume.header["sform_code"] == volume.header["qform_code"] == 0
    np.testing.assert_array_equal(read_nifti(tmp_path / "v.nii")[1].affine, volume.affine)


@pytest.mark.parametrize(
    "kind", ["truncated", "text", "empty", "missing", "4D", "complex", "colour", "singular", "flat", "nan"]
)
def test_bad_file(tmp_path, kind):
    path = tmp_path / "bad.nii.gz"
    shape = (8, 8, 8, 3) if kind == "4D" else (8, 8, 8)
    dtype = {"complex": np.complex64, "colour": [("R", "u1"), ("G", "u1"), ("B", "u1")]}.get(kind, np.float32)
    nib.save(nib.Nifti1Image(RNG.random(shape).astype(dtype), np.eye(4)), path)
    content = gzip.decompress(path.read_bytes())
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:700])
    elif kind in ("text", "empty"):
        path.write_text("no volume" * (kind == "text"))
    elif kind in ("singular", "flat", "nan"):  # the rows of the affine
        last = {"singular": 0, "flat": 1, "nan": np.nan}[kind]
        rows = [[1e6, 1e6 * (kind == "flat"), 0, 0], [0, 1e-10, 0, 0], [0, 0, last, 0]]  # flat: i and j are parallel
        path.write_bytes(gzip.compress(content[:280] + np.array(rows, "<f4").tobytes() + content[328:]))
    elif kind == "missing":
        path.unlink()
    with pytest.raises(InputError, match=r"bad\.nii\.gz") as error:
        read_nifti(path)
    assert "\n" not in str(error.value)


def test_huge_declared_shape_is_refused_before_reading(tmp_path):
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape((30_000, 30_000, 30_000))
    header["magic"], header["vox_offset"] = b"n+1", 352
    (tmp_path / "v.nii").write_bytes(header.binaryblock + bytes(16))
    with pytest.raises(InputError, match="shape"):
        read_nifti(tmp_path / "v.nii")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_written_bytes_are_the_same_again(tmp_path, ending):
    label, geometry = RNG.integers(0, 3, (5, 4, 3)).astype(np.uint8), Geometry(np.diag((-1, -1, 2, 1)), (3, 4, 5))
    for name in ("a", "b"):
        write_nifti(tmp_path / f"{name}{ending}", label, geometry)
    assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a{ending}", f"b{ending}"]


@pytest.mark.parametrize(
    ("given", "stored"),
    [("bool", "u1"), ("u1", "u1"), ("u2", "u2"), ("i8", "i8"), (">i4", "i4"), ("f2", "f4"), ("f4", "f4"), ("f8", "f8")],
)
def test_written_dtypes(tmp_path, given, stored):
    array, geometry = np.arange(60).reshape(5, 4, 3).astype(given), Geometry(np.diag((-1, -1, 2, 1)), (3, 4, 5))
    write_nifti(tmp_path / "v.nii", array, geometry)
    volume = nib.load(tmp_path / "v.nii")
    assert volume.get_data_dtype() == np.dtype(stored) and volume.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_array_equal(np.asarray(volume.dataobj), array.transpose(2, 1, 0))


def test_sheared_grid_keeps_its_affine(tmp_path):
    affine = np.array([[-1, 0, 0.25, 5], [0, -1, 0.5, 6], [0, 0, 3, 7], [0, 0, 0, 1]])
    write_nifti(tmp_path / "v.nii", np.zeros((5, 4, 3), np.uint8), Geometry(affine, (3, 4, 5)))
    np.testing.assert_array_equal(nib.load(tmp_path / "v.nii").affine, affine)


def test_writing_refuses_other_names_and_shapes(tmp_path):
    geometry = Geometry(np.eye(4), (3, 4, 5))
    with pytest.raises(InputError, match=r"v\.png"):
        write_nifti(tmp_path / "v.png", np.zeros((5, 4, 3), np.uint8), geometry)
    with pytest.raises(ValueError, match="shape"):
        write_nifti(tmp_path / "v.nii", np.zeros((3, 4, 5), np.uint8), geometry)
    assert not list(tmp_path.iterdir())


def test_label_with_other_axes_on_the_same_grid(tmp_path):
    affine = turned_affine((0, 1, 2), (-1, -1, 1), TILT)
    ids = RNG.integers(0, 4, (6, 5, 4)).astype(np.uint8)
    volume = nib.Nifti1Image(ids, affine)
    turned = volume.as_reoriented([[2, 1], [0, -1], [1, -1]])
    nib.save(volume, tmp_path / "v.nii.gz")
    nib.save(turned, tmp_path / "l.nii.gz")
    assert turned.shape != volume.shape
    array, geometry = read_nifti(tmp_path / "v.nii.gz")
    np.testing.assert_array_equal(read_nifti_label(tmp_path / "l.nii.gz", geometry), array)


@pytest.mark.parametrize(
    ("shape", "origin", "match"),
    [((6, 5, 4), 0.0, None), ((6, 5, 4), 0.06, None), ((6, 5, 4), 0.2, "affine"), ((6, 5, 3), 0.0, "shape")],
)
def test_grid_of_a_label(tmp_path, shape, origin, match):
    """The smallest voxel side is 0.7 mm."""
    affine = turned_affine((0, 1, 2), (-1, -1, 1), np.eye(3))
    geometry = Geometry(affine.copy(), (6, 5, 4))
    affine[0, 3] += origin
    nib.save(nib.Nifti1Image(np.ones(shape, np.uint8), affine), tmp_path / "l.nii")
    if match is None:
        assert read_nifti_label(tmp_path / "l.nii", geometry).shape == (4, 5, 6)
    else:
        with pytest.raises(InputError, match=rf"l\.nii: {match}: .*; allowed: the image's"):
            read_nifti_label(tmp_path / "l.nii", geometry)


def test_label_holds_whole_ids(tmp_path):
    nib.save(nib.Nifti1Image(np.full((3, 4, 5), 2, np.float64), np.eye(4)), tmp_path / "l.nii")
    label = read_nifti_label(tmp_path / "l.nii", None)
    assert label.dtype.kind == "i" and (label == 2).all()
    nib.save(nib.Nifti1Image(np.full((3, 4, 5), 0.5), np.eye(4)), tmp_path / "l.nii")
    with pytest.raises(InputError, match="fractions"):
        read_nifti_label(tmp_path / "l.nii", None)


@pytest.mark.parametrize(("name", "expected"), [("a.nii", True), ("A.NII.GZ", True), ("a.png", False), ("nii", False)])
def test_names(name, expected):
    assert is_nifti(name) is expected


def test_array_is_no_view_of_the_file(tmp_path):
    """Other programs overwrite and cut off files while a volume is worked on."""
    stored = RNG.integers(1, 255, (6, 5, 4), np.uint8)
    nib.save(nib.Nifti1Image(stored, np.diag([-1.0, -1, 1, 1])), tmp_path / "v.nii")
    array, _ = read_nifti(tmp_path / "v.nii")
    with (tmp_path / "v.nii").open("rb+") as file:
        file.seek(-stored.size, 2)
        file.write(bytes(stored.size))
    np.testing.assert_array_equal(array, stored.transpose(2, 1, 0))
