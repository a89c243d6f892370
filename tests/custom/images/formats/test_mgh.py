import gzip

import nibabel as nib
import numpy as np
import pytest
from nibabel.freesurfer import MGHImage

from custom.errors import InputError
from custom.images.formats import format_of, mgh
from custom.images.geometry import Geometry
from custom.images.image import Image

RNG = np.random.default_rng(0)
OBLIQUE = np.array([[0, 0.6, -1.6, 5], [-0.8, 0, 0, 6], [0, 0.8, 1.2, -7], [0, 0, 0, 1.0]])


def saved(path, array, affine=OBLIQUE):
    nib.save(MGHImage(array, affine), path)
    return str(path)


@pytest.mark.parametrize("name", ["v.mgz", "v.mgh", "V.MGZ"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32"])
def test_there_and_back(tmp_path, name, dtype):
    stored = RNG.integers(0, 99, (3, 4, 5)).astype(dtype)
    path = saved(tmp_path / name, stored)
    image, source = format_of(path).read(path), nib.load(path)
    assert image.format == "mgh" and image.array.dtype == dtype and image.array.dtype.isnative
    np.testing.assert_array_equal(image.geometry.restore(image.array), stored)
    np.testing.assert_array_equal(image.geometry.affine, source.affine)
    for labels, kind in ((np.uint8, np.uint8), (np.uint16, np.int32)):
        mgh.write_mask(tmp_path / "mask.mgz", (image.array > 50).astype(labels), {}, image)
        mask = nib.load(tmp_path / "mask.mgz")
        assert mask.get_data_dtype() == np.dtype(kind).newbyteorder(">")
        np.testing.assert_array_equal(np.asarray(mask.dataobj), stored > 50)
        np.testing.assert_array_equal(mask.affine, source.affine)
        changed = {n for n in source.header if mask.header[n].tobytes() != source.header[n].tobytes()}
        assert changed <= {"type"}


def test_frames(tmp_path):
    volumes = RNG.integers(0, 99, (3, 4, 5, 2)).astype(np.int16)
    path = saved(tmp_path / "v.mgz", volumes)
    image = mgh.read(path, frame=1)
    np.testing.assert_array_equal(image.geometry.restore(image.array), volumes[..., 1])
    assert image.notes == {"frame": 1} and image.stored_shape == (3, 4, 5)
    mgh.write_mask(tmp_path / "mask.mgz", image.array.astype(np.uint8), {}, image)
    np.testing.assert_array_equal(nib.load(tmp_path / "mask.mgz").get_fdata(), volumes[..., 1])
    with pytest.raises(InputError, match="frame: found 4D with 2 volumes; allowed: frame 0 to 1"):
        mgh.read(path)
    with pytest.raises(InputError, match="series"):
        mgh.read(path, frame=1, series="1")


def test_labels(tmp_path):
    ids = RNG.integers(0, 3, (3, 4, 5))
    label = mgh.read(saved(tmp_path / "l.mgz", ids.astype(np.float32)), labels=True)
    np.testing.assert_array_equal(label.geometry.restore(label.array), ids)
    assert label.array.dtype.kind == "i"


def test_a_header_without_directions_is_kept(tmp_path):
    path = saved(tmp_path / "v.mgh", RNG.integers(0, 99, (3, 4, 5)).astype(np.uint8))
    content = bytearray((tmp_path / "v.mgh").read_bytes())
    content[28:30] = bytes(2)  # goodRASFlag
    (tmp_path / "v.mgh").write_bytes(content)
    image = mgh.read(path)
    mgh.write_mask(tmp_path / "mask.mgz", image.array, {}, image)
    np.testing.assert_array_equal(nib.load(tmp_path / "mask.mgz").affine, nib.load(path).affine)


def test_mask_of_another_format_has_the_same_bytes_again(tmp_path):
    geometry = Geometry(OBLIQUE, (3, 4, 5))
    stored = RNG.integers(0, 3, (3, 4, 5)).astype(np.uint8)
    image = Image(path="a", format="nrrd", array=geometry.canonical(stored), kind="volume", geometry=geometry)
    assert mgh.mask_ending(image) == ".mgz" and mgh.mask_problem(image) is None
    for name in ("a.mgz", "b.mgz"):
        mgh.write_mask(tmp_path / name, image.array, {}, image)
    assert (tmp_path / "a.mgz").read_bytes() == (tmp_path / "b.mgz").read_bytes()
    mask = nib.load(tmp_path / "a.mgz")
    np.testing.assert_array_equal(np.asarray(mask.dataobj), stored)
    np.testing.assert_allclose(mask.affine, OBLIQUE, atol=1e-5)


def test_mask_of_a_slice_lies_where_the_slice_does(tmp_path):
    stored = RNG.integers(0, 99, (3, 4, 5)).astype(np.uint8)
    image = mgh.read(saved(tmp_path / "v.mgz", stored)).take_slice(3)
    mgh.write_mask(tmp_path / "mask.mgz", image.array, {}, image)
    mask = nib.load(tmp_path / "mask.mgz")
    np.testing.assert_array_equal(np.asarray(mask.dataobj), stored[..., 3:4])
    np.testing.assert_allclose(mask.affine, image.geometry.affine, atol=1e-5)


def declaring(content, dims=(3, 4, 5, 1), kind=0, version=1):
    numbers = np.array([version, *dims, kind], ">i4").tobytes()
    return numbers + content[24:]


@pytest.mark.parametrize("ending", [".mgh", ".mgz"])
@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda content: declaring(content, (2**15, 2**15, 2**15, 1)), "size: found 32768 x 32768 x 32768"),
        (lambda content: declaring(content, (1000, 1000, 1000, 1)), "size: found 1000000284 bytes declared"),
        (lambda content: declaring(content, (3, 4, 5, 2**31 - 1)), "frame: found 4D with 2147483647 volumes"),
        (lambda content: declaring(content, (3, -4, 5, 1)), "shape"),
        (lambda content: declaring(content, (3, 4, 5, 0)), "shape"),
        (lambda content: declaring(content, kind=77), "file"),
        (lambda content: declaring(content, version=2), "file"),
        (lambda content: content[:300], ""),
        (lambda content: content[:20], "file"),
        (lambda content: content[:42] + bytes(36) + content[78:], "affine"),
        (lambda content: b"", "file"),
    ],
)
def test_bad_file(tmp_path, ending, change, found):
    saved(tmp_path / "v.mgh", np.zeros((3, 4, 5), np.uint8))
    content = change((tmp_path / "v.mgh").read_bytes())
    path = tmp_path / f"bad{ending}"
    path.write_bytes(gzip.compress(content) if ending == ".mgz" else content)
    with pytest.raises(InputError, match=rf"bad\{ending}: {found}") as error:
        mgh.read(str(path))
    assert "\n" not in str(error.value)
