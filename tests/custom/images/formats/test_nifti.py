import gzip
import itertools

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from custom.errors import InputError
from custom.images.formats import format_of, nifti
from custom.images.geometry import Geometry
from custom.images.image import Image

RNG = np.random.default_rng(0)
TURNS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))
TILT = np.array([[0.96, -0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, 1.0]]) @ [[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]]
UPRIGHT = np.diag((-1.0, -1, 1, 1))


def turned_affine(order, signs, tilt, steps=(0.7, 1.1, 2.1)):
    """Return an affine whose voxel axis k runs along the world axis order[k], with those steps in mm."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for k, world in enumerate(order):
        affine[world, k] = signs[k] * steps[k]
    affine[:3, :3] = tilt @ affine[:3, :3]
    affine[:3, 3] = (-12.5, 40.25, 7.125)
    return affine


def write(path, array, affine=UPRIGHT, kind=nib.Nifti1Image, header=None, **fields):
    """Write a volume with nibabel, then set fields of its header that nibabel would correct."""
    nib.save(kind(array, affine, header), path)
    if fields:
        file = path.with_suffix(".hdr") if path.suffix == ".img" else path
        content, size = file.read_bytes(), kind.header_class.sizeof_hdr
        changed = kind.header_class(content[:size], check=False)
        for name, value in fields.items():
            changed[name] = value
        file.write_bytes(changed.binaryblock + content[size:])
    return str(path)


def written(path, image, labels=None, names=None):
    """Write a mask beside an image's file and return its path; by default of the image's own values."""
    labels = image.array.astype(np.uint16) if labels is None else labels
    labels = labels[0] if image.kind == "picture" else labels
    target = path.parent / f"mask{nifti.mask_ending(image)}"
    nifti.write_mask(target, labels, names or {}, image)
    return target


@pytest.mark.parametrize("tilt", [np.eye(3), TILT], ids=["straight", "oblique"])
@pytest.mark.parametrize(("order", "signs"), TURNS)
def test_every_orientation(tmp_path, order, signs, tilt):
    stored = RNG.permutation(60).reshape(3, 4, 5).astype(np.int16)
    image = nifti.read(write(tmp_path / "v.nii", stored, turned_affine(order, signs, tilt)))
    array, geometry = image.array, image.geometry

    upright = nib.as_closest_canonical(nib.load(tmp_path / "v.nii"))  # right, anterior, superior
    expected = np.asarray(upright.dataobj)[::-1, ::-1].transpose(2, 1, 0)
    np.testing.assert_array_equal(array, expected)
    assert array.dtype == np.int16 and array.flags.c_contiguous and image.kind == "volume"
    np.testing.assert_allclose(image.spacing, nib.affines.voxel_sizes(upright.affine)[::-1], atol=1e-6)

    z, y, x = 2, 1, 1  # the same voxel is at the same place
    i, j, k = np.argwhere(stored == array[z, y, x])[0]
    np.testing.assert_allclose(geometry.canonical_affine @ (x, y, z, 1), geometry.affine @ (i, j, k, 1), atol=1e-9)
    np.testing.assert_array_equal(image.to_source(array), stored)


@pytest.mark.parametrize("tilt", [np.eye(3), TILT], ids=["straight", "oblique"])
@pytest.mark.parametrize(("order", "signs"), TURNS)
def test_thick_slices_keep_their_plane(tmp_path, order, signs, tilt):
    stored = RNG.permutation(60).reshape(3, 4, 5).astype(np.int16)
    image = nifti.read(write(tmp_path / "v.nii", stored, turned_affine(order, signs, tilt, steps=(0.7, 1.1, 3.3))))
    upright = np.asarray(nib.as_closest_canonical(nib.load(tmp_path / "v.nii")).dataobj)  # right, anterior, superior
    sagittal, coronal = upright[::-1, ::-1, ::-1].transpose(0, 2, 1), upright[::-1, ::-1, ::-1].transpose(1, 2, 0)
    axial = upright[::-1, ::-1].transpose(2, 1, 0)
    np.testing.assert_array_equal(image.array, (sagittal, coronal, axial)[order[2]])
    assert image.geometry.canonical_shape == image.array.shape and image.spacing[0] == 3.3
    np.testing.assert_array_equal(image.geometry.restore(image.array), stored)


def test_axes_of_a_known_volume(tmp_path):
    """Brightness grows to the right by 1, to the front by 10 and upwards by 100."""
    right, front, up = np.indices((3, 4, 5))
    values = (right + 10 * front + 100 * up).astype(np.int16)
    image = nifti.read(write(tmp_path / "v.nii", values, np.diag((1, 2, 4, 1))))
    z, y, x = np.ix_(np.arange(5), np.arange(3, -1, -1), np.arange(2, -1, -1))
    np.testing.assert_array_equal(image.array, x + 10 * y + 100 * z)
    assert image.spacing == (4.0, 2.0, 1.0) and image.geometry.shape == (3, 4, 5)


@pytest.mark.parametrize(
    ("stored", "read"), [("uint8", "uint8"), ("int32", "int32"), (">i2", "int16"), ("float32", "float32")]
)
def test_dtypes(tmp_path, stored, read):
    values = RNG.integers(0, 99, (4, 5, 6)).astype(stored)
    header = nib.Nifti1Header(endianness=stored[0] if stored[0] in "<>" else "<")
    header.set_data_dtype(stored)
    image = nifti.read(write(tmp_path / "v.nii", values, UPRIGHT, header=header))
    assert image.array.dtype == np.dtype(read) and image.array.dtype.isnative
    np.testing.assert_array_equal(image.array, values.transpose(2, 1, 0))
    mask = written(tmp_path / "v.nii", image)
    np.testing.assert_array_equal(np.asarray(nib.load(mask).dataobj), values)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(mask))), values.T)


def test_shapes_and_scaling(tmp_path):
    values = RNG.integers(0, 99, (4, 5, 1, 1)).astype(np.int16)
    image = nifti.read(write(tmp_path / "a.nii", values, scl_slope=2, scl_inter=1))
    assert image.array.shape == (1, 5, 4) and image.array.dtype == np.float32 and image.kind == "picture"
    assert image.geometry.shape == image.stored_shape == (4, 5, 1)
    np.testing.assert_array_equal(image.array[0].T, nib.load(tmp_path / "a.nii").get_fdata()[..., 0, 0])
    mask = nib.load(written(tmp_path / "a.nii", image, np.full((1, 5, 4), 7, np.uint8)))
    assert mask.shape == (4, 5, 1) and (mask.get_fdata() == 7).all()  # the scaling of the image is not the mask's


def test_flat_file_gets_a_flat_mask(tmp_path):
    """The third spacing belongs to the quaternion, with or without a third axis."""
    flat = RNG.integers(0, 99, (4, 5)).astype(np.uint8)
    spacing = (1, 0.7, 1.1, 2.1, 0, 0, 0, 0)
    affine = turned_affine((0, 1, 2), (-1, 1, -1), TILT)
    path = write(tmp_path / "a.nii", flat, affine, sform_code=0, qform_code=1, pixdim=spacing)
    image = nifti.read(path)
    assert image.geometry.shape == (4, 5, 1) and image.array.shape == (1, 5, 4) and image.kind == "picture"
    mask, source = nib.load(written(tmp_path / "a.nii", image)), nib.load(path)
    np.testing.assert_array_equal(mask.get_fdata(), flat)
    assert mask.shape == (4, 5) and image.to_source(image.array[0]).shape == (4, 5)
    np.testing.assert_array_equal(mask.affine, source.affine)
    places = [sitk.ReadImage(str(file)) for file in (path, tmp_path / "mask.nii.gz")]
    assert places[0].GetSize() == places[1].GetSize() and places[0].GetOrigin() == places[1].GetOrigin()


def test_frames_of_a_4d_file(tmp_path):
    volumes = RNG.integers(0, 99, (3, 4, 5, 2)).astype(np.int16)
    path = write(tmp_path / "v.nii.gz", volumes)
    for frame in (0, 1):
        image = nifti.read(path, frame=frame)
        np.testing.assert_array_equal(image.array, volumes[..., frame].transpose(2, 1, 0))
        assert image.stored_shape == (3, 4, 5) and image.notes == {"frame": frame}
        mask = nib.load(written(tmp_path / "v.nii.gz", image))
        np.testing.assert_array_equal(mask.get_fdata(), volumes[..., frame])
    for frame, found in ((None, "4D with 2 volumes"), (2, "2 of 2"), (-1, "-1 of 2"), ("x", "x of 2")):
        with pytest.raises(InputError, match=rf"v\.nii\.gz: frame: found {found}; allowed: frame 0 to 1"):
            nifti.read(path, frame=frame)
    write(tmp_path / "w.nii", volumes[..., None])
    np.testing.assert_array_equal(nifti.read(str(tmp_path / "w.nii"), frame=1).array, volumes[..., 1].T)


def test_a_3d_file_has_one_frame(tmp_path):
    path = write(tmp_path / "v.nii", np.ones((3, 4, 5), np.uint8), np.eye(4))
    image = nifti.read(path, frame=0)
    assert image.array.shape == (5, 4, 3) and image.notes == {}
    with pytest.raises(InputError, match="frame: found 1 of 1; allowed: frame 0"):
        nifti.read(path, frame=1)
    with pytest.raises(InputError, match="series"):
        nifti.read(path, series="1")


def test_no_orientation_is_nibabels_default(tmp_path):
    write(tmp_path / "v.nii", np.ones((3, 4, 5), np.uint8), None)
    volume = nib.load(tmp_path / "v.nii")
    assert volume.header["sform_code"] == volume.header["qform_code"] == 0
    np.testing.assert_array_equal(nifti.read(str(tmp_path / "v.nii")).geometry.affine, volume.affine)


@pytest.mark.parametrize("unit", ["unknown", "mm", "micron", "meter"])
def test_units(tmp_path, unit):
    volume = nib.Nifti1Image(
        np.ones((3, 4, 5), np.uint8), turned_affine((0, 1, 2), (-1, 1, 1), np.eye(3), (10, 20, 30))
    )
    volume.header.set_xyzt_units(unit)
    nib.save(volume, tmp_path / "v.nii")
    image, seen = nifti.read(str(tmp_path / "v.nii")), sitk.ReadImage(str(tmp_path / "v.nii"))
    np.testing.assert_allclose(image.spacing[::-1], seen.GetSpacing(), rtol=1e-6)
    np.testing.assert_allclose(image.geometry.affine[:3, 3] * (-1, -1, 1), seen.GetOrigin(), rtol=1e-6)


# Two readers of a header: ITK prefers another form of the affine than nibabel, and has another default.
FORMS = {
    "both": {"qform_code": 1},
    "qform alone": {"qform_code": 1, "sform_code": 0},
    "sform alone": {"qform_code": 0},
    "none": {"sform_code": 0, "qform_code": 0},
    "40 mm apart": {"qform_code": 1, "sform_code": 4, "qoffset_x": -52.5},
    "micrometres": {"xyzt_units": 3},
}


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image, nib.Nifti1Pair, nib.Nifti2Pair])
@pytest.mark.parametrize("fields", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("endianness", "<>")
def test_mask_has_the_header_of_its_image(tmp_path, kind, fields, endianness):
    stored = RNG.integers(0, 99, (3, 4, 5)).astype(np.int16)
    pair = kind in (nib.Nifti1Pair, nib.Nifti2Pair)
    affine = turned_affine((1, 0, 2), (1, -1, -1), TILT)
    header = kind.header_class(endianness=endianness)
    path = write(
        tmp_path / ("v.img" if pair else "v.nii"),
        stored,
        affine,
        kind,
        header,
        **({"cal_max": 9, "descrip": b"a scan", "intent_code": 3, "intent_p1": 2} | fields),
    )
    mask = written(tmp_path / "v", nifti.read(path), (nifti.read(path).array > 50).astype(np.uint8))
    volume, source = nib.load(mask), nib.load(path)
    assert type(volume.header) is type(source.header) and mask.suffix == (".hdr" if pair else ".gz")
    changed = {n for n in source.header if volume.header[n].tobytes() != source.header[n].tobytes()}
    assert changed <= {
        *("datatype", "bitpix", "cal_max", "descrip", "intent_code", "intent_p1", "scl_slope", "scl_inter"),
    }
    assert volume.header["cal_max"] == volume.header["intent_code"] == 0 and not volume.header["descrip"]
    np.testing.assert_array_equal(np.asarray(volume.dataobj), stored > 50)
    if isinstance(volume, (nib.Nifti2Image, nib.Nifti2Pair)):
        return  # which ITK does not read
    seen, original = (sitk.ReadImage(str(file)) for file in (mask, path))
    for place in ("GetOrigin", "GetSpacing", "GetDirection", "GetSize"):
        assert getattr(seen, place)() == getattr(original, place)()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(seen), sitk.GetArrayFromImage(original) > 50)


@pytest.mark.parametrize("kind", [nib.AnalyzeImage, nib.Spm99AnalyzeImage, nib.Spm2AnalyzeImage])
@pytest.mark.parametrize("labels", [np.uint8, np.uint16])
def test_pairs_of_analyze(tmp_path, kind, labels):
    stored = RNG.integers(0, 99, (3, 4, 5)).astype(np.int16)
    path = write(tmp_path / "v.img", stored, np.diag((-2.0, 3, 4, 1)), kind)
    (tmp_path / "v.mat").unlink(missing_ok=True)
    image, source = nifti.read(path), nib.load(path)
    np.testing.assert_array_equal(image.geometry.affine, source.affine)
    np.testing.assert_array_equal(image.geometry.restore(image.array), stored)
    mask = nib.load(written(tmp_path / "v.img", image, image.array.astype(labels)))
    np.testing.assert_array_equal(mask.get_fdata(), stored)
    np.testing.assert_array_equal(mask.affine, source.affine)
    (tmp_path / "v.mat").write_bytes(b"")
    with pytest.raises(InputError, match=r"v\.img: file: found Analyze with an affine in a \.mat file"):
        nifti.read(path)


@pytest.mark.parametrize("names", ["v.hdr v.img", "v.HDR v.IMG", "v.hdr.gz v.img.gz"])
def test_either_half_of_a_pair(tmp_path, names):
    header, voxels = (tmp_path / name for name in names.split())
    stored = RNG.integers(0, 99, (3, 4, 5)).astype(np.int16)
    write(tmp_path / "w.img", stored, UPRIGHT, nib.Nifti1Pair)
    for file, half in ((header, "hdr"), (voxels, "img")):
        content = (tmp_path / f"w.{half}").read_bytes()
        file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)
    for half in (header, voxels):
        np.testing.assert_array_equal(format_of(half).read(str(half)).array, stored.T)
        assert nifti.mask_ending(nifti.read(str(half))) == ".hdr"
    voxels.unlink()
    with pytest.raises(InputError, match=f"{header.name}: file: found no {voxels.name} beside it"):
        nifti.read(str(header))
    voxels.write_bytes(b"")
    with pytest.raises(InputError, match=f"{voxels.name}: size"):
        nifti.read(str(header))


def test_a_header_of_the_other_kind_is_refused(tmp_path):
    path = write(tmp_path / "v.nii", np.zeros((3, 4, 5), np.uint8))
    write(tmp_path / "w.img", np.zeros((3, 4, 5), np.uint8), UPRIGHT, nib.Nifti1Pair)
    for name, content in (("v.hdr", (tmp_path / "v.nii").read_bytes()), ("x.nii", (tmp_path / "w.hdr").read_bytes())):
        (tmp_path / name).write_bytes(content + bytes(500))
    (tmp_path / "v.img").write_bytes(bytes(500))
    nifti.read(path)
    for name in ("v.hdr", "x.nii"):
        with pytest.raises(InputError, match="no NIfTI header"):
            nifti.read(str(tmp_path / name))


@pytest.mark.parametrize(
    "kind", ["truncated", "text", "empty", "missing", "5D", "1D", "complex", "colour", "singular", "flat", "nan"]
)
def test_bad_file(tmp_path, kind):
    path = tmp_path / "bad.nii.gz"
    shape = {"5D": (8, 8, 8, 1, 3), "1D": (8,)}.get(kind, (8, 8, 8))
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
        nifti.read(str(path))
    assert "\n" not in str(error.value)


def test_values_that_are_not_finite_are_read(tmp_path):
    values = np.array([np.nan, np.inf, 1e300, 2.0]).reshape(2, 2, 1)
    array = nifti.read(write(tmp_path / "v.nii", values)).array
    np.testing.assert_array_equal(array[0].T, np.array([[np.nan, np.inf], [np.inf, 2]], np.float32))


def elsewhere(shape, affine=UPRIGHT, **fields):
    """Return an image of another format, on a grid."""
    geometry = Geometry(affine, shape)
    array = np.zeros(geometry.canonical_shape, np.uint8)
    return Image(path="a", format="nrrd", array=array, kind="volume", geometry=geometry, **fields)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".hdr"])
def test_written_bytes_are_the_same_again(tmp_path, ending):
    image = nifti.read(write(tmp_path / "v.img", np.zeros((3, 4, 5), np.int16), UPRIGHT, nib.Nifti1Pair))
    image = image if ending == ".hdr" else elsewhere((3, 4, 5))
    labels = RNG.integers(0, 3, (5, 4, 3)).astype(np.uint8)
    (tmp_path / "masks").mkdir()
    contents = []
    for name in ("a", "b"):
        nifti.write_mask(tmp_path / "masks" / f"{name}{ending}", labels, {}, image)
        contents.append([file.read_bytes() for file in sorted((tmp_path / "masks").glob(f"{name}.*"))])
    assert contents[0] == contents[1]
    assert len(list((tmp_path / "masks").iterdir())) == (4 if ending == ".hdr" else 2)


def test_half_a_mask_is_none(tmp_path, monkeypatch):
    image = nifti.read(write(tmp_path / "v.img", np.zeros((3, 4, 5), np.uint8), UPRIGHT, nib.Nifti1Pair))
    (tmp_path / "mask.hdr").mkdir()  # where the second half cannot be written
    with pytest.raises(OSError, match="mask"):
        written(tmp_path / "v.img", image)
    assert not (tmp_path / "mask.img").exists()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_mask_of_another_format(tmp_path, dtype):
    affine = turned_affine((2, 0, 1), (-1, 1, -1), TILT)
    image, stored = elsewhere((3, 4, 5), affine), RNG.integers(0, 250, (3, 4, 5)).astype(dtype)
    assert nifti.mask_ending(image) == ".nii.gz" and nifti.mask_problem(image) is None
    nifti.write_mask(tmp_path / "m.nii.gz", image.geometry.canonical(stored), {}, image)
    mask = nib.load(tmp_path / "m.nii.gz")
    np.testing.assert_array_equal(np.asarray(mask.dataobj), stored)
    np.testing.assert_allclose(mask.get_sform(), affine, atol=1e-5)
    np.testing.assert_allclose(mask.get_qform(), affine, atol=2e-5)
    assert mask.get_data_dtype() == dtype and mask.header.get_xyzt_units()[0] == "mm"
    assert mask.header["sform_code"] == mask.header["qform_code"] == 1


def test_sheared_grid_keeps_its_affine(tmp_path):
    affine = np.array([[-1, 0, 0.25, 5], [0, -1, 0.5, 6], [0, 0, 3, 7], [0, 0, 0, 1]])
    nifti.write_mask(tmp_path / "v.nii", np.zeros((5, 4, 3), np.uint8), {}, elsewhere((3, 4, 5), affine))
    np.testing.assert_array_equal(nib.load(tmp_path / "v.nii").affine, affine)


def test_picture_longer_than_an_axis_of_nifti_1(tmp_path):
    image = Image(path="a", format="png", array=np.zeros((2, 40_000), np.uint8), kind="picture", spacing=(0.5, 0.25))
    nifti.write_mask(tmp_path / "v.nii", np.ones((2, 40_000), np.uint8), {}, image)
    mask = nib.load(tmp_path / "v.nii")
    assert mask.shape == (40_000, 2, 1) and (mask.get_fdata() == 1).all()
    np.testing.assert_array_equal(mask.affine, np.diag((-0.25, -0.5, 1, 1)))


def test_mask_of_a_slice_lies_where_the_slice_does(tmp_path):
    stored = RNG.integers(0, 99, (3, 4, 5)).astype(np.uint8)
    image = nifti.read(write(tmp_path / "v.nii", stored, turned_affine((0, 1, 2), (1, 1, -1), TILT))).take_slice(3)
    nifti.write_mask(tmp_path / "m.nii", image.array, {}, image)
    mask = nib.load(tmp_path / "m.nii")
    np.testing.assert_array_equal(np.asarray(mask.dataobj), stored[..., 3:4])
    np.testing.assert_allclose(mask.affine, image.geometry.affine, atol=1e-5)


def test_writing_refuses_other_shapes(tmp_path):
    with pytest.raises(ValueError, match="shape"):
        nifti.write_mask(tmp_path / "v.nii", np.zeros((3, 4, 5), np.uint8), {}, elsewhere((3, 4, 5)))
    assert not list(tmp_path.iterdir())


def test_label_holds_whole_ids(tmp_path):
    label = nifti.read(write(tmp_path / "l.nii", np.full((3, 4, 5), 2.0**24 + 1), np.eye(4)), labels=True).array
    assert label.dtype.kind == "i" and (label == 2**24 + 1).all()
    write(tmp_path / "l.nii", np.full((3, 4, 5), 0.5), np.eye(4))
    with pytest.raises(InputError, match="fractions"):
        nifti.read(str(tmp_path / "l.nii"), labels=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.nii", True), ("A.NII.GZ", True), ("a.hdr", True), ("a.img", True), ("a.png", False), ("nii", False)],
)
def test_names(tmp_path, name, expected):
    assert not nifti.recognises(str(tmp_path / name))
    (tmp_path / name).touch()
    assert nifti.recognises(str(tmp_path / name)) is expected


def test_array_is_no_view_of_the_file(tmp_path):
    """Other programs overwrite and truncate files while a volume is in use."""
    stored = RNG.integers(1, 255, (6, 5, 4), np.uint8)
    array = nifti.read(write(tmp_path / "v.nii", stored)).array
    with (tmp_path / "v.nii").open("rb+") as file:
        file.seek(-stored.size, 2)
        file.write(bytes(stored.size))
    np.testing.assert_array_equal(array, stored.transpose(2, 1, 0))
