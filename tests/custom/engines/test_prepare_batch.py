import pytest
import torch
from torch import nn

from custom.engines import PromptPrepareBatch
from custom.networks import FrozenCLIP
from custom.prompts import Prompts


class Mean(nn.Module):
    """Stands for a tower: the mean of each channel."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, crop):
        return crop.mean(dim=(2, 3)) * self.weight


@pytest.fixture
def clip():
    return FrozenCLIP(image_tower=Mean(), text_tower=nn.Identity(), width=3)


@pytest.fixture
def batch():
    """Two images with three boxes each."""
    torch.manual_seed(0)
    return {
        "image": torch.rand(2, 3, 8, 8),
        "label": torch.ones(2, 3, 8, 8),
        "boxes": torch.rand(2, 3, 4),
        "modality_index": torch.tensor([4, -1]),
        "crop": torch.rand(2, 3, 3, 4, 4),
        "clip_crop": torch.rand(2, 3, 3, 6, 6),
        "case": ["a", "b"],
    }


@pytest.mark.parametrize("device", ["cpu", None])
def test_training(batch, device):
    image, target, (prompts,), options = PromptPrepareBatch()(batch, device)
    assert image is batch["image"] and options == {"full_output": True}
    assert target.keys() == {"label", "modality"}
    assert target["label"] is batch["label"] and target["modality"] is batch["modality_index"]
    expected = Prompts(boxes=batch["boxes"], crops=batch["crop"], modality=batch["modality_index"])
    assert all(found is wanted for found, wanted in zip(prompts, expected, strict=True))


def test_evaluation(batch):
    _, target, (prompts,), options = PromptPrepareBatch(full_output=False)(batch, "cpu", True)
    assert target is batch["label"] and options == {}
    assert prompts.boxes is batch["boxes"] and prompts.crops is batch["crop"] and not prompts.correcting


@pytest.mark.parametrize("device", ["cpu", None])
def test_clip(batch, clip, device):
    _, _, (prompts,), _ = PromptPrepareBatch(clip=clip)(batch, device)
    torch.testing.assert_close(prompts.image_features, batch["clip_crop"].mean(dim=(3, 4)))
    assert not prompts.image_features.requires_grad


def test_clip_crops_are_not_needed_without_clip(batch):
    del batch["clip_crop"]
    (prompts,) = PromptPrepareBatch()(batch, "cpu")[2]
    assert prompts.image_features is None


def test_to_another_device(batch, clip):
    image, target, (prompts,), _ = PromptPrepareBatch(clip=clip)(batch, "meta")
    moved = [image, target["label"], *(value for value in prompts if value is not None)]
    assert all(value.device.type == "meta" for value in moved) and len(moved) == 6


@pytest.mark.parametrize("full_output", [True, False])
def test_modality_untold(batch, full_output):
    _, target, (prompts,), _ = PromptPrepareBatch(full_output=full_output, tell_modality=False)(batch)
    assert prompts.modality.tolist() == [-1, -1]
    assert not full_output or target["modality"] is batch["modality_index"]


def test_modality_hidden_from_the_prompt_alone(batch):
    batch["modality_prompt"] = torch.tensor([-1, -1])
    _, target, (prompts,), _ = PromptPrepareBatch()(batch)
    assert prompts.modality is batch["modality_prompt"] and target["modality"] is batch["modality_index"]
