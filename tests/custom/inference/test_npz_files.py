import stat

import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator

from custom.errors import InputError
from custom.inference import NpzDataset, PrepareCase, SaveSegsd, npz_modality, read_npz_case

PICTURE, VOLUME = np.arange(600, dtype=np.uint16).reshape(20, 30) % 256, np.zeros((4, 20, 30), np.uint8)
BOX, BOX_3D = [[1, 2, 8, 9]], [[1, 2, 0, 8, 9, 3]]


def write(folder, name="2D_US_1", **arrays):
    np.savez_compressed(folder / f"{name}.npz", **arrays)
    return folder / f"{name}.npz"


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        ("2D_US_1", "US"),
        ("3D_CT_liver_01", "CT"),
        ("2D_XRay_a", "X-Ray"),
        ("case", None),
        ("2D", None),
        ("US_2D", None),
    ],
)
def test_modality_of_the_name(name, modality):
    assert npz_modality(f"folder/{name}.npz") == modality


@pytest.mark.parametrize(
    ("image", "boxes"),
    [
        (PICTURE, BOX),
        (PICTURE, BOX[0]),
        (PICTURE.astype(float), np.array(BOX * 3, np.int32)),
        (np.zeros((20, 30, 3), np.uint8), BOX),
        (VOLUME, BOX_3D),
        (np.zeros((4, 20, 3), np.uint8), [[0, 2, 0, 2, 9, 3]]),
    ],
)
def test_case(tmp_path, image, boxes):
    case = read_npz_case(write(tmp_path, imgs=image, boxes=boxes, other=np.zeros(3)))
    assert case["image"].dtype == torch.uint8 and case["case"] == "2D_US_1" and case["modality"] == "US"
    np.testing.assert_array_equal(case["image"], image)
    np.testing.assert_array_equal(case["boxes"], np.atleast_2d(boxes))


@pytest.mark.parametrize(
    ("arrays", "field", "found"),
    [
        ({"imgs": PICTURE}, "boxes", "no such array"),
        ({"boxes": BOX}, "imgs", "no such array"),
        ({"imgs": PICTURE, "boxes": [[8, 2, 1, 9]]}, "boxes[0]", "[8, 2, 1, 9]"),
        ({"imgs": PICTURE, "boxes": [[0, 0, 30, 9]]}, "boxes[0]", "[0, 0, 30, 9]"),
        ({"imgs": PICTURE, "boxes": [[0, 0, 9]]}, "boxes", "shape (1, 3)"),
        ({"imgs": PICTURE, "boxes": np.zeros((0, 4))}, "boxes", "shape (0, 4)"),
        ({"imgs": PICTURE, "boxes": np.array([["a"] * 4] * 2)}, "boxes", "array("),
        ({"imgs": PICTURE, "boxes": BOX_3D}, "imgs", "shape (20, 30)"),
        ({"imgs": VOLUME, "boxes": BOX}, "imgs", "shape (4, 20, 30)"),
        ({"imgs": VOLUME, "boxes": [[1, 2, 0, 8, 9, 4]]}, "boxes[0]", "[1, 2, 0, 8, 9, 4]"),
        ({"imgs": np.zeros((2, 20, 30, 3), np.uint8), "boxes": BOX_3D}, "imgs", "shape (2, 20, 30, 3)"),
        ({"imgs": PICTURE * 9, "boxes": BOX}, "image", "uint16 values 0 to 2295"),
        ({"imgs": np.array([["a"]]), "boxes": BOX}, "image", "<U1 values"),
        ({"imgs": np.array([{}], object), "boxes": BOX}, "file", "ValueError: Object arrays"),
        ({"imgs": PICTURE, "boxes": np.array([None], object)}, "file", "ValueError: Object arrays"),
    ],
)
def test_bad_arrays(tmp_path, arrays, field, found):
    path = write(tmp_path, **arrays)
    with pytest.raises(InputError) as error:
        read_npz_case(path)
    message = str(error.value)
    assert message.startswith(f"{path}: {field}: found {found}") and "; allowed: " in message and "\n" not in message


def test_unknown_modality(tmp_path):
    with pytest.raises(InputError, match=r"2D_SPECT_1\.npz: modality: found 'SPECT'; allowed: CT, MR"):
        read_npz_case(write(tmp_path, "2D_SPECT_1", imgs=PICTURE, boxes=BOX))


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "truncated", "damaged", "npy", "folder"])
def test_no_npz(tmp_path, kind):
    path = write(tmp_path, imgs=np.random.default_rng(0).integers(0, 256, (50, 50), np.uint8), boxes=BOX)
    content = path.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif kind != "missing":
        damaged = content[:300] + bytes(100) + content[400:]
        path.write_bytes({"empty": b"", "text": b"a\nb", "truncated": content[:900], "damaged": damaged}[kind])
    with pytest.raises(InputError) as error:
        read_npz_case(path)
    assert str(error.value).startswith(f"{path}: file: found ") and "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["missing", "empty"])
def test_folder_without_cases(tmp_path, kind):
    with pytest.raises(InputError, match="dataset_dir: found no npz file"):
        NpzDataset(tmp_path / "none" if kind == "missing" else tmp_path)


@pytest.mark.parametrize(("boxes", "dtype"), [(2, np.uint8), (255, np.uint8), (300, np.uint16)])
def test_save(tmp_path, boxes, dtype):
    labels = torch.arange(boxes + 1, dtype=torch.int32).expand(2, -1)
    out = tmp_path / "new" / "folder"
    SaveSegsd("pred", output_dir=out)({"pred": labels, "case": "2D_US_1.5"})
    assert [path.name for path in out.iterdir()] == ["2D_US_1.5.npz"]  # nothing half-written beside it
    with np.load(out / "2D_US_1.5.npz") as file:
        assert file.files == ["segs"] and file["segs"].dtype == dtype
        np.testing.assert_array_equal(file["segs"], labels)
    (tmp_path / "plain").touch()
    assert stat.S_IMODE((out / "2D_US_1.5.npz").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_failed_save_leaves_the_earlier_file(tmp_path, monkeypatch):
    save = SaveSegsd("pred", output_dir=tmp_path)
    save({"pred": torch.ones(2, 2), "case": "a"})

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="no space"):
        save({"pred": torch.zeros(2, 2), "case": "a"})
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    with np.load(tmp_path / "a.npz") as file:
        assert file["segs"].all()


def test_folder_through_the_evaluator(tmp_path):
    """Pictures, colour pictures, volumes, and a file whose name tells no modality, as the bundle runs them."""
    write(tmp_path, "2D_US_1", imgs=PICTURE, boxes=BOX * 2)
    write(tmp_path, "3D_CT_1", imgs=VOLUME, boxes=BOX_3D)
    write(tmp_path, "case", imgs=np.zeros((20, 30, 3), np.uint8), boxes=BOX)
    asked = []

    def inferer(inputs, network, boxes, modality):
        asked.append((tuple(inputs.shape), tuple(boxes.shape), modality))
        return torch.full(inputs.shape if boxes.shape[-1] == 6 else inputs.shape[:3], len(asked), dtype=torch.int32)

    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(NpzDataset(tmp_path), batch_size=1),
        network=torch.nn.Identity(),
        prepare_batch=PrepareCase(),
        inferer=inferer,
        postprocessing=SaveSegsd("pred", output_dir=tmp_path / "out"),
    ).run()
    assert asked == [
        ((1, 20, 30), (1, 2, 4), ["US"]),
        ((1, 4, 20, 30), (1, 1, 6), ["CT"]),
        ((1, 20, 30, 3), (1, 1, 4), [""]),
    ]
    for value, (name, shape) in enumerate([("2D_US_1", (20, 30)), ("3D_CT_1", (4, 20, 30)), ("case", (20, 30))], 1):
        with np.load(tmp_path / "out" / f"{name}.npz") as file:
            np.testing.assert_array_equal(file["segs"], np.full(shape, value))
