import stat

import numpy as np
import pytest

from custom.errors import InputError
from custom.inference.npz import challenge_modality, read_npz, write_segs
from custom.inference.sources import read_input

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
    assert challenge_modality(f"2D_PET_1/{name}") == modality


def test_unknown_modality(tmp_path):
    path = write(tmp_path, "2D_SPECT_1", imgs=PICTURE, boxes=BOX)
    with pytest.raises(InputError, match=r"2D_SPECT_1\.npz: modality: found 'SPECT'; allowed: CT, MR"):
        read_input(path)
    assert read_input(path, modality="US").modality == "US"


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
    found = read_input(write(tmp_path, imgs=image, other=np.zeros(3), **({} if boxes is None else {"boxes": boxes})))
    np.testing.assert_array_equal(found.array, image)
    assert (found.kind, found.format, found.modality, found.modality_source) == (kind, "npz", "US", "file name")
    if boxes is None:
        assert found.boxes is None
    else:
        np.testing.assert_array_equal(found.checked_boxes(found.boxes), np.atleast_2d(boxes))


@pytest.mark.parametrize(("name", "volume"), [("2D_US_1", False), ("3D_US_1", True), ("case", False)])
def test_name_tells_a_narrow_volume_without_boxes(tmp_path, name, volume):
    assert read_npz(write(tmp_path, name, imgs=np.zeros((4, 20, 3), np.uint8))).volume == volume


def test_deep_values_are_scaled_as_data_preparation_does(tmp_path):
    found = read_input(write(tmp_path, imgs=PICTURE.astype(np.uint16) * 9, boxes=BOX)).array
    assert found.min() == 0 and found.max() == 255


def test_spacing(tmp_path):
    arrays = {"imgs": VOLUME, "boxes": BOX_3D, "spacing": np.array([0.5, 0.75, 3])}
    image = read_input(write(tmp_path, "3D_CT_1", **arrays))
    assert image.spacing == (3.0, 0.75, 0.5) and image.source_spacing == (0.5, 0.75, 3.0)
    assert read_input(write(tmp_path, imgs=PICTURE, spacing=arrays["spacing"])).spacing is None
    for wrong in ([1, 2], [1, 0, 2], [np.inf, 1, 1], ["a", "b", "c"]):
        with pytest.raises(InputError, match="spacing: found .*three positive numbers"):
            read_npz(write(tmp_path, "3D_CT_1", **arrays | {"spacing": np.array(wrong)}))


@pytest.mark.parametrize(
    ("arrays", "field", "found"),
    [
        ({"boxes": BOX}, "imgs", "no such array"),
        ({"imgs": np.zeros((2, 20, 30, 3), np.uint8)}, "imgs", "shape (2, 20, 30, 3)"),
        ({"imgs": np.zeros((0, 4), np.uint8)}, "imgs", "shape (0, 4)"),
        ({"imgs": np.array([["a"]])}, "image", "dtype <U1"),
        ({"imgs": np.array([[np.nan]])}, "image", "NaN or infinite values"),
        ({"imgs": np.array([{}], object)}, "file", "ValueError (Object arrays"),
        ({"imgs": PICTURE, "boxes": np.array([None], object)}, "file", "ValueError (Object arrays"),
        ({"imgs": PICTURE, "boxes": [[8, 2, 1, 9]]}, "boxes[0]", "[8, 2, 1, 9]"),
        ({"imgs": PICTURE, "boxes": [[0, 0, 30, 9]]}, "boxes[0]", "[0, 0, 30, 9]"),
        ({"imgs": PICTURE, "boxes": [[0, 0, 9]]}, "boxes", "shape (1, 3)"),
        ({"imgs": PICTURE, "boxes": np.zeros((0, 4))}, "boxes", "no box"),
        ({"imgs": PICTURE, "boxes": np.array([["a"] * 4] * 2)}, "boxes", "array("),
        ({"imgs": PICTURE, "boxes": BOX_3D}, "boxes", "6 numbers a box for a picture"),
        ({"imgs": VOLUME, "boxes": BOX}, "boxes", "4 numbers a box for a volume"),
        ({"imgs": VOLUME, "boxes": [[1, 2, 0, 8, 9, 4]]}, "boxes[0]", "[1, 2, 0, 8, 9, 4]"),
    ],
)
def test_bad_arrays(tmp_path, arrays, field, found):
    path = write(tmp_path, **arrays)
    with pytest.raises(InputError) as error:
        image = read_input(path)
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
        read_npz(path)
    assert str(error.value).startswith(f"{path}: file: found ") and "\n" not in str(error.value)


@pytest.mark.parametrize(("boxes", "dtype"), [(2, np.uint8), (255, np.uint8), (300, np.uint16)])
def test_save(tmp_path, boxes, dtype):
    labels = np.tile(np.arange(boxes + 1), (2, 1))
    path = tmp_path / "2D_US_1.5.npz"
    write_segs(path, labels)
    assert list(tmp_path.iterdir()) == [path]  # nothing half-written beside it
    with np.load(path) as file:
        assert file.files == ["segs"] and file["segs"].dtype == dtype
        np.testing.assert_array_equal(file["segs"], labels)
    (tmp_path / "plain").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_failed_save_leaves_the_earlier_file(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    write_segs(path, np.ones((2, 2)))

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="no space"):
        write_segs(path, np.zeros((2, 2)))
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == [path]
    with np.load(path) as file:
        assert file["segs"].all()
