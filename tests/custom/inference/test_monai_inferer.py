import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator

from custom.errors import InputError
from custom.inference import monai_inferer
from custom.inference.monai_inferer import BoxInferer, NpzDataset, PrepareCase, SaveSegsd

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
    items = list(NpzDataset(folder))
    assert [(item["case"], item["modality"]) for item in items] == [("2D_US_1", "US"), ("3D_CT_1", "CT"), ("case", "")]
    assert all(item["image"].dtype == torch.uint8 and item["boxes"].dtype == torch.float64 for item in items)
    assert [tuple(item["boxes"].shape) for item in items] == [(2, 4), (1, 6), (1, 4)]


@pytest.mark.parametrize("kind", ["missing", "empty"])
def test_folder_without_cases(tmp_path, kind):
    with pytest.raises(InputError, match="dataset_dir: found no npz file"):
        NpzDataset(tmp_path / "none" if kind == "missing" else tmp_path)


def test_case_without_boxes(tmp_path):
    np.savez(tmp_path / "2D_US_1.npz", imgs=PICTURE)
    with pytest.raises(RuntimeError) as error:  # MONAI's; ``report_input_errors`` shows what is behind it
        NpzDataset(tmp_path)[0]
    assert isinstance(error.value.__cause__, InputError) and "boxes: found no such array" in str(error.value.__cause__)


def test_unknown_overlap():
    with pytest.raises(InputError, match="overlap: found 'first'"):
        BoxInferer(overlap="first")


@pytest.mark.parametrize("follow", [True, False])
def test_folder_through_the_evaluator(folder, make_backend, monkeypatch, follow):
    """Pictures, colour pictures, volumes, and a file whose name tells no modality, as the bundle runs them."""
    asked, backend, network = [], make_backend(likely="OCT"), torch.nn.Identity()
    monkeypatch.setattr(monai_inferer, "TorchBackend", lambda *given, **more: asked.append((*given, more)) or backend)
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(NpzDataset(folder), batch_size=1),
        network=network,
        prepare_batch=PrepareCase(),
        inferer=BoxInferer(clip="towers", bfloat16=True, follow=follow),
        postprocessing=SaveSegsd("pred", output_dir=folder / "new" / "out"),
    ).run()
    assert asked == [(network, "towers", {"bfloat16": True})] * 3
    prompted = [call.modality for call in backend.decoded]
    slices = [0] * (4 if follow else 2)  # CT, each followed slice twice
    assert prompted == [7, *slices, -1, 8]  # US, CT, and the classifier's answer
    expected = {"2D_US_1": PICTURE > 0, "3D_CT_1": VOLUME > 0, "case": PICTURE > 0}
    for name, mask in expected.items():
        with np.load(folder / "new" / "out" / f"{name}.npz") as file:
            np.testing.assert_array_equal(file["segs"], mask)
