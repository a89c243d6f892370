import stat

import numpy as np
import pytest

from custom.errors import InputError
from custom.images.formats import format_of, npz
from custom.images.image import Image
from custom.images.reading import named_modality, read_image, read_labels

PICTURE, VOLUME = (np.arange(600).reshape(20, 30) % 256).astype(np.uint8), np.zeros((4, 20, 30), np.uint8)
BOX, BOX_3D = [[1, 2, 8, 9]], [[1, 2, 0, 8, 9, 3]]


def write(folder, name="2D_US_1", **arrays):
    np.savez_compressed(folder / f"{name}.npz", **arrays)
    return folder / f"{name}.npz"


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        ("2D_US_1.npz", "US"),
        ("3D_CT_liver_01.nii.gz", "CT"),
        ("2D_XRay", "X-Ray"),
        ("case.npz", None),
        ("2D.npz", None),
        ("US_2D.npz", None),
    ],
)
def test_modality_of_the_name(name, modality):
    assert named_modality(f"2D_PET_1/{name}", strict=True) == modality


def test_unknown_modality(tmp_path):
    path = write(tmp_path, "2D_SPECT_1", imgs=PICTURE, boxes=BOX)
    with pytest.raises(InputError, match=r"2D_SPECT_1\.npz: modality: found 'SPECT'; allowed: CT, MR"):
        read_image(path)
    assert read_image(path, modality="US").modality == "US"


@pytest.mark.parametrize(
    ("image", "boxes", "kind"),
    [
        (PICTURE, BOX, "picture"),
        (PICTURE, BOX[0], "picture"),
        (PICTURE, None, "picture"),
        (np.stack([PICTURE, PICTURE // 2, PICTURE], axis=-1), BOX, "picture"),
        (VOLUME, BOX_3D, "volume"),
        (VOLUME[:1], [[1, 2, 0, 8, 9, 0]], "volume"),
        (VOLUME[:, :, :3], [[0, 2, 0, 2, 9, 3]], "volume"),
    ],
)
def test_case(tmp_path, image, boxes, kind):
    found = read_image(write(tmp_path, imgs=image, other=np.zeros(3), **({} if boxes is None else {"boxes": boxes})))
    np.testing.assert_array_equal(found.array, image)
    assert (found.kind, found.format, found.modality, found.modality_source) == (kind, "npz", "US", "file name")
    assert format_of(found.path) is npz
    if boxes is None:
        assert found.boxes is None
    else:
        np.testing.assert_array_equal(found.checked_boxes(found.boxes), np.atleast_2d(boxes))


@pytest.mark.parametrize(("name", "volume"), [("2D_US_1", False), ("3D_US_1", True), ("case", False)])
def test_name_tells_a_narrow_volume_without_boxes(tmp_path, name, volume):
    image = npz.read(write(tmp_path, name, imgs=np.zeros((4, 20, 3), np.uint8)))
    assert image.kind == ("volume" if volume else "picture")
    assert image.array.shape == ((4, 20, 3) if volume else (1, 4, 20, 3))


def test_deep_values_are_scaled_as_data_preparation_does(tmp_path):
    found = read_image(write(tmp_path, imgs=PICTURE.astype(np.uint16) * 9, boxes=BOX)).array
    assert found.min() == 0 and found.max() == 255


def test_spacing(tmp_path):
    arrays = {"imgs": VOLUME, "boxes": BOX_3D, "spacing": np.array([0.5, 0.75, 3])}
    image = read_image(write(tmp_path, "3D_CT_1", **arrays))
    assert image.spacing == (3.0, 0.75, 0.5) and image.source_spacing == (0.5, 0.75, 3.0)
    assert read_image(write(tmp_path, imgs=PICTURE, spacing=arrays["spacing"])).spacing is None
    for wrong in ([1, 2], [1, 0, 2], [np.inf, 1, 1], ["a", "b", "c"]):
        with pytest.raises(InputError, match="spacing: found .*three positive numbers"):
            npz.read(write(tmp_path, "3D_CT_1", **arrays | {"spacing": np.array(wrong)}))


@pytest.mark.parametrize(
    ("arrays", "field", "found"),
    [
        ({"boxes": BOX}, "imgs", "no such array"),
        ({"imgs": np.zeros((2, 20, 30, 3), np.uint8)}, "imgs", "shape (2, 20, 30, 3)"),
        ({"imgs": np.zeros((0, 4), np.uint8)}, "imgs", "shape (0, 4)"),
        ({"imgs": np.array([["a"]])}, "image", "dtype <U1"),
        ({"imgs": np.array([[np.nan]])}, "image", "NaN in every voxel"),
        ({"imgs": np.array([{}], object)}, "file", "ValueError (Object arrays"),
        ({"imgs": PICTURE, "boxes": np.array([None], object)}, "file", "ValueError (Object arrays"),
        ({"imgs": PICTURE, "boxes": [[8, 2, 1, 9]]}, "boxes[0]", "[8, 2, 1, 9]"),
        ({"imgs": PICTURE, "boxes": [[0, 0, 30, 9]]}, "boxes[0]", "[0, 0, 30, 9]"),
        ({"imgs": PICTURE, "boxes": [[0, 0, 9]]}, "boxes", "shape (1, 3)"),
        ({"imgs": PICTURE, "boxes": np.zeros((0, 4))}, "boxes", "no box"),
        ({"imgs": PICTURE, "boxes": np.array([["a"] * 4] * 2)}, "boxes", "array("),
        ({"imgs": PICTURE, "boxes": BOX_3D}, "boxes", "6 numbers per box for a picture"),
        ({"imgs": VOLUME, "boxes": BOX}, "boxes", "4 numbers per box for a volume"),
        ({"imgs": VOLUME, "boxes": [[1, 2, 0, 8, 9, 4]]}, "boxes[0]", "[1, 2, 0, 8, 9, 4]"),
    ],
)
def test_bad_arrays(tmp_path, arrays, field, found):
    path = write(tmp_path, **arrays)
    with pytest.raises(InputError) as error:
        image = read_image(path)
        image.checked_boxes(image.boxes)
    message = str(error.value)
    assert message.startswith(f"{path}: {field}: found {found}") and "; allowed: " in message and "\n" not in message


@pytest.mark.parametrize("kind", ["truncated", "damaged", "npy", "folder"])
def test_no_npz(tmp_path, kind):
    path = write(tmp_path, imgs=np.random.default_rng(0).integers(0, 256, (50, 50), np.uint8), boxes=BOX)
    content = path.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    else:
        damaged = content[:300] + bytes(100) + content[400:]
        path.write_bytes({"truncated": content[:900], "damaged": damaged}[kind])
    with pytest.raises(InputError) as error:
        npz.read(path)
    assert str(error.value).startswith(f"{path}: file: found ") and "\n" not in str(error.value)


@pytest.mark.parametrize("field", ["segs", "gts"])
@pytest.mark.parametrize("shape", [(5, 6), (4, 5, 6), (4, 5, 3), (1, 5, 6)])
def test_labels(tmp_path, field, shape):
    ids = np.random.default_rng(0).integers(0, 300, shape).astype(np.uint16)
    arrays = {field: ids, "imgs": np.zeros((2, 2)), "spacing": np.array([0.5, 0.75, 3])}
    found = read_labels(write(tmp_path, **arrays))
    assert (found.kind, found.spacing) == (("volume", (3.0, 0.75, 0.5)) if len(shape) == 3 else ("picture", None))
    np.testing.assert_array_equal(found.array, ids if len(shape) == 3 else ids[None])


def test_labels_of_a_result_come_before_those_of_the_challenge(tmp_path):
    assert npz.read(write(tmp_path, segs=PICTURE, gts=PICTURE + 1), labels=True).array[0, 0, 0] == PICTURE[0, 0]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"imgs": PICTURE}, "segs: found no such array; allowed: segs or gts"),
        ({"gts": PICTURE[0]}, r"gts: found shape \(30,\)"),
        ({"segs": PICTURE - 0.5}, "label: found fractions"),
    ],
)
def test_bad_labels(tmp_path, arrays, message):
    with pytest.raises(InputError, match=message):
        npz.read(write(tmp_path, **arrays), labels=True)


@pytest.mark.parametrize(("choice", "field"), [({"frame": 0}, "frame"), ({"series": "1.2"}, "series")])
def test_an_npz_offers_no_choice(tmp_path, choice, field):
    with pytest.raises(InputError, match=rf"2D_US_1\.npz: {field}: found"):
        npz.read(write(tmp_path, imgs=PICTURE), **choice)


@pytest.mark.parametrize(("boxes", "dtype"), [(2, np.uint8), (255, np.uint8), (300, np.uint16)])
def test_save(tmp_path, boxes, dtype):
    labels = np.tile(np.arange(boxes + 1, dtype=np.uint16), (2, 1))
    image = Image(path="a", format="npz", array=labels, kind="picture")
    path = tmp_path / f"2D_US_1.5{npz.mask_ending(image)}"
    assert npz.mask_problem(image) is None
    npz.write_mask(path, labels, {}, image)
    assert list(tmp_path.iterdir()) == [path]  # nothing half-written beside it
    with np.load(path) as file:
        assert file.files == ["segs"] and file["segs"].dtype == dtype
        np.testing.assert_array_equal(file["segs"], labels)
    (tmp_path / "plain").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_mask_lies_on_the_voxels_of_the_source(tmp_path):
    class Turned:
        def to_zyx(self, labels):
            return labels[::-1]

    npz.write_mask(tmp_path / "a.npz", PICTURE, {}, Turned())
    np.testing.assert_array_equal(np.load(tmp_path / "a.npz")["segs"], PICTURE[::-1])


def test_failed_save_leaves_the_earlier_file(tmp_path, monkeypatch):
    path, labels = tmp_path / "a.npz", np.ones((2, 2), np.uint8)
    image = Image(path="a", format="npz", array=labels, kind="picture")
    npz.write_mask(path, labels, {}, image)

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="no space"):
        npz.write_mask(path, 0 * labels, {}, image)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == [path]
    with np.load(path) as file:
        assert file["segs"].all()
