import gzip
import itertools

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from custom.errors import InputError
from data_prep.readers.files import as_label, read_nifti, read_picture, read_picture_label

RNG = np.random.default_rng(0)
TURNS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))


@pytest.mark.parametrize(("order", "signs"), TURNS)
def test_nifti_becomes_lps_axial(tmp_path, order, signs):
    """A volume that stores its own RAS coordinates must come out with x to the left, y to the back, z up."""
    sizes, steps = np.array((3, 4, 5)), np.array((1.0, 2.0, 4.0))  # along R, A, S
    affine = np.eye(4)
    affine[:3, :3] = 0
    for voxel_axis, world_axis in enumerate(order):
        affine[world_axis, voxel_axis] = signs[world_axis] * steps[world_axis]
        affine[world_axis, 3] = 0 if signs[world_axis] > 0 else (sizes[world_axis] - 1) * steps[world_axis]
    index = np.stack(np.indices(sizes[list(order)]), -1)
    r, a, s = np.moveaxis(index @ affine[:3, :3].T + affine[:3, 3], -1, 0)
    nib.save(nib.Nifti1Image((r + 10 * a + 100 * s).astype(np.int16), affine), tmp_path / "v.nii.gz")
    array, spacing = read_nifti(tmp_path / "v.nii.gz")
    z, y, x = np.ix_(np.arange(5) * 4, np.arange(3, -1, -1) * 2, np.arange(2, -1, -1))
    np.testing.assert_array_equal(array, x + 10 * y + 100 * z)
    assert spacing == (4.0, 2.0, 1.0)


def test_nifti_shapes_and_scaling(tmp_path):
    volume = nib.Nifti1Image(RNG.integers(0, 99, (4, 5, 1, 1)).astype(np.int16), np.diag((-1, -1, 1, 1)))
    volume.header.set_slope_inter(2.0, 1.0)
    nib.save(volume, tmp_path / "a.nii")
    array, _ = read_nifti(tmp_path / "a.nii")
    assert array.shape == (1, 5, 4)
    np.testing.assert_allclose(array[0].T, nib.load(tmp_path / "a.nii").get_fdata()[..., 0, 0])


@pytest.mark.parametrize("kind", ["truncated", "text", "missing", "4D", "complex", "flat"])
def test_bad_nifti(tmp_path, kind):
    path = tmp_path / "bad.nii.gz"
    shape = (8, 8, 8, 3) if kind == "4D" else (8, 8, 8)
    dtype = np.complex64 if kind == "complex" else np.float32
    nib.save(nib.Nifti1Image(RNG.random(shape).astype(dtype), np.eye(4)), path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:700])
    elif kind == "text":
        path.write_text("no volume")
    elif kind == "flat":  # srow_z, the third row of the affine, is zero
        content = gzip.decompress(path.read_bytes())
        path.write_bytes(gzip.compress(content[:312] + bytes(16) + content[328:]))
    elif kind == "missing":
        path.unlink()
    with pytest.raises(InputError, match=r"bad\.nii\.gz") as error:
        read_nifti(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("mode", "shape", "dtype"),
    [
        ("L", (1, 6, 7), np.uint8),
        ("RGB", (1, 6, 7, 3), np.uint8),
        ("RGBA", (1, 6, 7, 3), np.uint8),
        ("LA", (1, 6, 7), np.uint8),
        ("P", (1, 6, 7, 3), np.uint8),
        ("1", (1, 6, 7), np.uint8),
        ("I;16", (1, 6, 7), np.uint16),
    ],
)
def test_picture_modes(tmp_path, mode, shape, dtype):
    colours = RNG.integers(0, 256, (6, 7, 3), np.uint8)
    if mode == "I;16":
        Image.fromarray(np.full((6, 7), 40_000, np.uint16)).save(tmp_path / "p.png")
    else:
        Image.fromarray(colours).convert(mode).save(tmp_path / "p.png")
    array = read_picture(tmp_path / "p.png")
    assert array.shape == shape and array.dtype == dtype
    if mode in ("RGB", "RGBA"):
        np.testing.assert_array_equal(array[0], colours)
    if mode == "I;16":
        assert (array == 40_000).all()


def test_palette_label_keeps_indices(tmp_path):
    ids = RNG.integers(0, 4, (5, 6), np.uint8)
    picture = Image.fromarray(ids, "P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    picture.save(tmp_path / "l.png")
    np.testing.assert_array_equal(read_picture_label(tmp_path / "l.png")[0], ids)


@pytest.mark.parametrize("kind", ["truncated", "text", "missing"])
def test_bad_picture(tmp_path, kind):
    path = tmp_path / "bad.png"
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:400])
    elif kind == "text":
        path.write_text("no picture")
    else:
        path.unlink()
    with pytest.raises(InputError, match=r"bad\.png: file"):
        read_picture(path)


def test_colour_label_is_refused(tmp_path):
    Image.fromarray(RNG.integers(0, 256, (6, 6, 3), np.uint8)).save(tmp_path / "l.png")
    with pytest.raises(InputError, match="3 channels"):
        read_picture_label(tmp_path / "l.png")


def test_label_values():
    assert as_label(np.array([0.0, 3.0], np.float32), "x").tolist() == [0, 3]
    assert as_label(np.array([True]), "x").dtype == np.uint8
    for bad in ([0.5], [np.nan], [-1], ["a"]):
        with pytest.raises(InputError, match="x: label"):
            as_label(np.array(bad), "x")
