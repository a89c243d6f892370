import pytest
import torch
import torch.nn.functional as F

from custom.checkpoints import load_checkpoint, start_network
from custom.networks import build_mcp_medsam
from custom.networks.mask_refinement import MaskRefinement
from custom.prompts import Prompts

OFF = {"clip_text": False, "clip_image": False}
BOXES = torch.tensor([[40.0, 24.0, 103.0, 55.0], [8.0, 8.0, 23.0, 15.0]])
NAMES = [f"mask_refinement.{name}" for name in MaskRefinement().state_dict()]


@pytest.fixture
def lively():
    torch.manual_seed(0)
    refinement = MaskRefinement().eval()
    torch.nn.init.normal_(refinement.head.weight)
    return refinement


@pytest.fixture
def refining(lively_network, lively):
    """The shared network with a refinement that has an effect; afterwards it is off and neutral again."""
    lively_network.mask_refinement.load_state_dict(lively.state_dict())
    yield lively_network
    lively_network.mask_refinement.on = False
    lively_network.mask_refinement.start_as_identity()


@torch.no_grad()
@pytest.mark.parametrize("side", [16, 64])
def test_corrects_inside_the_box_only(lively, side):
    logits = torch.randn(2, 256, 256)
    change = lively(logits, torch.rand(2, 3, side, side), BOXES) - logits
    inside = torch.zeros(2, 256, 256, dtype=torch.bool)
    inside[0, 24:56, 40:104], inside[1, 8:16, 8:24] = True, True
    assert not change[~inside].any() and change[inside].abs().mean() > 0.1


@torch.no_grad()
def test_starts_as_identity():
    logits = torch.randn(2, 256, 256)
    assert torch.equal(MaskRefinement()(logits, torch.rand(2, 3, 32, 32), BOXES), logits)


@torch.no_grad()
def test_brightness_and_contrast_of_the_crop_do_not_matter(lively):
    logits, crop = torch.randn(2, 1, 32, 32), torch.rand(2, 3, 32, 32)
    crop = (crop - crop.mean((1, 2, 3), keepdim=True)) / crop.std((1, 2, 3), keepdim=True, correction=0)
    found = [lively.correct(logits, 100 * crop + level, BOXES) for level in (0.0, 50.0)]
    torch.testing.assert_close(*found, atol=1e-3, rtol=1e-3)


def test_constant_crop_gives_finite_numbers_and_gradients(lively):
    crop = torch.full((2, 3, 16, 16), 0.5)
    boxes = torch.tensor([[3.0, 4.0, 3.0, 4.0], [-5.0, -5.0, 300.0, 300.0]])
    change = lively(torch.full((2, 256, 256), 1e4), crop, boxes)
    change.sum().backward()
    assert change.isfinite().all() and all(p.grad.isfinite().all() for p in lively.parameters())


@torch.no_grad()
def test_the_network_decodes_then_refines(refining, switch):
    network = switch(refining, **OFF, content_cnn=False)
    embedding, crop = torch.randn(1, 256, 64, 64), torch.rand(1, 2, 3, 32, 32)
    found = network.decode(embedding, Prompts(boxes=BOXES[None], crops=crop))
    network.mask_refinement.on = False
    before = network.decode(embedding, Prompts(boxes=BOXES[None]))
    torch.testing.assert_close(found.mask_logits[0], network.mask_refinement(before.mask_logits[0], crop[0], BOXES))
    assert torch.equal(found.iou, before.iou) and not torch.equal(found.mask_logits, before.mask_logits)


@torch.no_grad()
def test_the_content_cnn_takes_the_mean_of_sharper_crops(refining):
    encoder, crop, modality = refining.prompt_encoder, torch.rand(2, 3, 64, 64), torch.tensor([0, 1])
    encoder.content_size = 32
    assert refining.crop_size == 64
    prompts = Prompts(boxes=BOXES, modality=modality)
    found, expected = (encoder(prompts._replace(crops=given)).dense for given in (crop, F.avg_pool2d(crop, 2)))
    encoder.content_size = 64
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("on", "content", "expected"), [(False, 32, 32), (True, 32, 64), (True, 64, 64), (True, 96, 96)]
)
def test_side_of_the_crops(on, content, expected):
    assert build_mcp_medsam(**OFF, mask_refinement=on, content_size=content).crop_size == expected


def test_crops_are_needed(refining, switch):
    network = switch(refining, **OFF, content_cnn=False)
    with pytest.raises(ValueError, match="^crops: found None"):
        network.decode(torch.randn(1, 256, 64, 64), Prompts(boxes=BOXES[None]))
    with torch.no_grad():
        output = network.predict(torch.rand(1, 3, 256, 256), Prompts(boxes=BOXES[None]))
    assert output.mask_logits.shape == (1, 2, 256, 256)


@pytest.mark.parametrize("on", [True, False])
def test_checkpoints_tell_it(tmp_path, on):
    stored = build_mcp_medsam(**OFF, mask_refinement=on)
    torch.nn.init.ones_(stored.mask_refinement.head.weight)
    torch.save(stored.state_dict(), tmp_path / "model.pt")
    network = build_mcp_medsam(mask_refinement=not on)
    assert not load_checkpoint(network, tmp_path / "model.pt").missing
    assert network.mask_refinement.on is on and network.mask_refinement.head.weight.all()


def test_checkpoints_from_before_it(tmp_path):
    tensors = build_mcp_medsam(**OFF).state_dict()
    for name in NAMES:
        del tensors[name]
    torch.save(tensors, tmp_path / "model.pt")
    network = build_mcp_medsam(mask_refinement=True)
    torch.nn.init.ones_(network.mask_refinement.head.weight)
    assert not load_checkpoint(network, tmp_path / "model.pt").missing
    assert not network.mask_refinement.on and not network.mask_refinement.head.weight.any()


def test_checkpoint_that_lacks_a_part_of_it(tmp_path):
    tensors = build_mcp_medsam(**OFF).state_dict()
    del tensors["mask_refinement.head.weight"]
    torch.save(tensors, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="'mask_refinement.head.weight'"):
        load_checkpoint(build_mcp_medsam(), tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("stored", "asked", "expected"),
    [(None, None, False), (None, True, True), (True, None, True), (True, False, False), (False, None, False)],
)
def test_start_of_a_training(stored, asked, expected, tmp_path):
    path = tmp_path / "model.pt"
    if stored is not None:
        torch.save(build_mcp_medsam(**OFF, mask_refinement=stored).state_dict(), path)
    network = build_mcp_medsam(**OFF)
    start_network(network, "lite_medsam" if stored is None else path, keep_components=True, mask_refinement=asked)
    assert network.mask_refinement.on is expected
