import json

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from PIL import Image

from custom.errors import InputError
from custom.inference import monai_inferer
from custom.inference.monai_inferer import BoxDataset, BoxInferer, PrepareCase, SaveMasksd

PICTURE, VOLUME = np.zeros((20, 30), np.uint8), np.zeros((4, 20, 30), np.uint8)
PICTURE[4:9, 6:15] = VOLUME[1:3, 4:9, 6:15] = 200
BOX, BOX_3D = [[3, 2, 18, 12]], [[3, 2, 1, 18, 12, 2]]


@pytest.fixture
def folder(tmp_path):
    for name, image, boxes in [
        ("2D_US_1", PICTURE, BOX * 2),
        ("3D_CT_1", VOLUME, BOX_3D),
        ("case", np.repeat(PICTURE[..., None], 3, axis=2), BOX),
    ]:
        np.savez_compressed(tmp_path / f"{name}.npz", imgs=image, boxes=boxes)
    return tmp_path


def test_items(folder):
    items = list(BoxDataset(folder))
    assert [(item["case"], item["modality"]) for item in items] == [("2D_US_1", "US"), ("3D_CT_1", "CT"), ("case", "")]
    assert all(item["image"].dtype == torch.uint8 and item["boxes"].dtype == torch.float64 for item in items)
    assert [tuple(item["boxes"].shape) for item in items] == [(2, 4), (1, 6), (1, 4)]


@pytest.mark.parametrize("kind", ["missing", "empty"])
def test_folder_without_cases(tmp_path, kind):
    with pytest.raises(InputError, match="found "):
        BoxDataset(tmp_path / "none" if kind == "missing" else tmp_path)


def test_case_without_boxes(tmp_path):
    np.savez(tmp_path / "2D_US_1.npz", imgs=PICTURE)
    with pytest.raises(RuntimeError) as error:  # MONAI's; ``report_input_errors`` shows what is behind it
        BoxDataset(tmp_path)[0]
    assert isinstance(error.value.__cause__, InputError) and "boxes: found no boxes" in str(error.value.__cause__)


def test_a_list_with_clicks_is_refused(folder):
    entry = {"image": "2D_US_1.npz", "boxes": BOX, "points": [[4, 5]]}
    (folder / "list.json").write_text(json.dumps([entry]))
    with pytest.raises(InputError, match="points of 2D_US_1: found clicks or a mask; allowed: boxes; custom.segment"):
        BoxDataset(folder, boxes=str(folder / "list.json"))


def test_unknown_overlap():
    with pytest.raises(InputError, match="overlap: found 'first'"):
        BoxInferer(overlap="first")


@pytest.mark.parametrize("follow", [True, False])
def test_folder_through_the_evaluator(folder, make_backend, monkeypatch, follow):
    """Pictures, colour pictures, volumes, and a file whose name has no modality, as the bundle runs them."""
    asked, backend, network = [], make_backend(likely="OCT"), torch.nn.Identity()
    monkeypatch.setattr(monai_inferer, "TorchBackend", lambda *given, **more: asked.append((*given, more)) or backend)
    dataset = BoxDataset(folder)
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(dataset, batch_size=1),
        network=network,
        prepare_batch=PrepareCase(),
        inferer=BoxInferer(clip="towers", bfloat16=True, follow=follow),
        postprocessing=SaveMasksd("pred", output_dir=folder / "new" / "out", dataset=dataset),
    ).run()
    assert asked == [(network, "towers", {"bfloat16": True})] * 3
    prompted = [call.modality for call in backend.decoded]
    slices = [0] * (4 if follow else 2)  # CT, each followed slice twice
    assert prompted == [7, *slices, -1, 8]  # US, CT, and the classifier's prediction
    expected = {"2D_US_1": PICTURE > 0, "3D_CT_1": VOLUME > 0, "case": PICTURE > 0}
    for name, mask in expected.items():
        with np.load(folder / "new" / "out" / f"{name}.npz") as file:
            np.testing.assert_array_equal(file["segs"], mask)


@pytest.mark.parametrize("table", ["csv", "json"])
def test_a_folder_of_any_format_with_a_table_of_boxes(tmp_path, make_backend, monkeypatch, table):
    folder, backend = tmp_path / "in", make_backend()
    folder.mkdir()
    Image.fromarray(PICTURE).save(folder / "a.png")
    affine = np.diag([-1.0, -1, 2, 1])
    nib.save(nib.Nifti1Image(VOLUME.transpose(2, 1, 0), affine), folder / "v.nii.gz")
    boxes = tmp_path / f"boxes.{table}"
    if table == "csv":
        rows = [
            "image,x_min,y_min,z_min,x_max,y_max,z_max,modality",
            "a.png,3,2,,18,12,,US",
            "v.nii.gz,3,2,1,18,12,2,CT",
        ]
        boxes.write_text("\n".join(rows))
    else:
        entries = [("a.png", BOX, "US"), ("v.nii.gz", BOX_3D, "CT")]
        boxes.write_text(json.dumps([{"image": i, "boxes": b, "modality": m} for i, b, m in entries]))
    monkeypatch.setattr(monai_inferer, "TorchBackend", lambda *_, **__: backend)
    dataset = BoxDataset(folder, boxes=str(boxes))
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(dataset, batch_size=1),
        network=torch.nn.Identity(),
        prepare_batch=PrepareCase(),
        inferer=BoxInferer(bfloat16=False),
        postprocessing=SaveMasksd("pred", output_dir=tmp_path / "out", dataset=dataset),
    ).run()
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "a_mask.png")), PICTURE > 0)
    found = nib.load(tmp_path / "out" / "v_mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(found.dataobj).transpose(2, 1, 0), VOLUME > 0)
    np.testing.assert_array_equal(found.affine, affine)
    assert {call.modality for call in backend.decoded} == {7, 0}


@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_every_case_once(world, tmp_path, monkeypatch):
    """Under torchrun the processes share a folder."""
    for k in range(5):
        np.savez(tmp_path / f"2D_US_{k}.npz", imgs=np.full((4, 4), k, np.uint8), boxes=[[0, 0, 3, 3]])
    monkeypatch.setenv("WORLD_SIZE", str(world))
    shares = []
    for rank in range(world):
        monkeypatch.setenv("RANK", str(rank))
        shares.append([item["case"] for item in BoxDataset(tmp_path)])
    assert sorted(sum(shares, [])) == [f"2D_US_{k}" for k in range(5)]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_another_backend_takes_the_checkpoint(make_backend, make_model, monkeypatch):
    asked, backend = [], make_backend()
    monkeypatch.setattr(monai_inferer, "choose_model", lambda **given: asked.append(given) or make_model(backend))
    inferer = BoxInferer(backend="openvino", checkpoint="model.pt", bfloat16=True)
    found = inferer(torch.from_numpy(PICTURE)[None], None, torch.tensor([BOX]), ["US"])
    np.testing.assert_array_equal(found[0], PICTURE > 0)
    assert asked == [{"checkpoint": "model.pt", "backend": "openvino", "precision": "bf16"}]
