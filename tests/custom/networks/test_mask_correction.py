import pytest
import torch

from custom.checkpoints import load_checkpoint, start_network
from custom.networks import build_mcp_medsam
from custom.networks.mask_correction import MaskCorrection, click_maps
from custom.prompts import NEGATIVE, NO_POINT, POSITIVE

OFF = {"clip_text": False, "clip_image": False}
VIEWS = torch.tensor([[40.0, 24.0, 103.0, 87.0], [8.0, 8.0, 23.0, 15.0]])
POINTS = torch.tensor([[[60.0, 50.0], [90.0, 30.0]], [[12.0, 10.0], [0.0, 0.0]]])
LABELS = torch.tensor([[POSITIVE, NEGATIVE], [NEGATIVE, NO_POINT]])


@pytest.fixture
def lively():
    torch.manual_seed(0)
    correction = MaskCorrection().eval()
    for layer in (correction.head, correction.iou_head):
        torch.nn.init.normal_(layer.weight)
    return correction


def inside_views():
    inside = torch.zeros(2, 256, 256, dtype=torch.bool)
    inside[0, 24:88, 40:104], inside[1, 8:16, 8:24] = True, True
    return inside


@torch.no_grad()
def test_starts_as_identity():
    logits = torch.randn(2, 256, 256)
    found, iou = MaskCorrection()(logits, torch.rand(2, 3, 16, 16), VIEWS, POINTS, LABELS, torch.randn(2, 256, 256))
    assert torch.equal(found, logits) and not iou.any()


@torch.no_grad()
def test_corrects_inside_the_view_only(lively):
    logits = torch.randn(2, 256, 256)
    found, iou = lively(logits, torch.rand(2, 3, 32, 32), VIEWS, POINTS, LABELS)
    change, inside = found - logits, inside_views()
    assert not change[~inside].any() and change[inside].abs().mean() > 0.1 and iou.shape == (2,)


@torch.no_grad()
def test_objects_without_clicks_and_mask_keep_their_masks(lively):
    logits, views = torch.randn(2, 256, 256), torch.rand(2, 3, 16, 16)
    clicked = LABELS.clone()
    clicked[0] = NO_POINT
    masks = torch.randn(2, 256, 256)
    masks[1] = 0
    for points, labels, given, kept in ((POINTS, clicked, None, 0), (None, None, masks, 1)):
        found, iou = lively(logits, views, VIEWS, points, labels, given)
        assert torch.equal(found[kept], logits[kept]) and iou[kept] == 0
        assert not torch.equal(found[1 - kept], logits[1 - kept]) and iou[1 - kept] != 0
    found, iou = lively(logits, views, VIEWS, POINTS, clicked, masks)
    assert (found != logits).flatten(1).any(dim=1).all() and iou.all()  # a mask alone, and a click alone


@torch.no_grad()
@pytest.mark.parametrize("changed", ["views", "points", "label", "mask before", "decoder's mask"])
def test_everything_has_a_say(lively, changed):
    logits, views, masks = torch.randn(1, 1, 16, 16), torch.rand(1, 3, 16, 16), torch.randn(1, 1, 16, 16)
    first = [logits, masks, views, VIEWS[:1], POINTS[:1], LABELS[:1]]
    other = list(first)
    place = {"views": 2, "points": 4, "label": 5, "mask before": 1, "decoder's mask": 0}[changed]
    other[place] = LABELS[:1].flip(1) if changed == "label" else first[place].flip(-2)
    found, wanted = lively.correct(*other)[0], lively.correct(*first)[0]
    assert (found - wanted).abs().max() > 1e-3


@torch.no_grad()
def test_padding_of_clicks_has_no_effect(lively):
    logits, views = torch.randn(2, 256, 256), torch.rand(2, 3, 16, 16)
    found = lively(logits, views, VIEWS, POINTS, LABELS)
    more = torch.cat([POINTS, torch.full((2, 3, 2), 77.0)], 1), torch.cat([LABELS, torch.full((2, 3), NO_POINT)], 1)
    for value, expected in zip(lively(logits, views, VIEWS, *more), found, strict=True):
        assert torch.equal(value, expected)


@torch.no_grad()
def test_brightness_and_contrast_of_the_view_do_not_matter(lively):
    views = torch.rand(2, 3, 32, 32)
    views = (views - views.mean((1, 2, 3), keepdim=True)) / views.std((1, 2, 3), keepdim=True, correction=0)
    maps = torch.randn(2, 2, 32, 32)
    given = (VIEWS, POINTS, LABELS)
    found = [lively.correct(maps[:, :1], maps[:, 1:], 100 * views + level, *given)[0] for level in (0.0, 50.0)]
    torch.testing.assert_close(*found, atol=1e-3, rtol=1e-3)


def test_constant_view_gives_finite_numbers_and_gradients(lively):
    boxes = torch.tensor([[3.0, 4.0, 3.0, 4.0], [-5.0, -5.0, 300.0, 300.0]])
    found, iou = lively(torch.full((2, 256, 256), 1e4), torch.full((2, 3, 16, 16), 0.5), boxes, POINTS, LABELS)
    (found.sum() + iou.sum()).backward()
    assert found.isfinite().all() and all(p.grad.isfinite().all() for p in lively.parameters())


@torch.no_grad()
def test_in_float32_under_autocast(lively):
    logits, views = torch.randn(2, 256, 256), torch.rand(2, 3, 16, 16)
    expected = lively(logits, views, VIEWS, POINTS, LABELS)
    with torch.autocast("cpu", torch.bfloat16):
        found = lively(logits, views, VIEWS, POINTS, LABELS)
    assert all(torch.equal(value, wanted) for value, wanted in zip(found, expected, strict=True))


@pytest.mark.parametrize("side", [16, 21])
def test_clicks_are_discs(side):
    """Each pixel by its own distances: in each map the click that is nearest counts."""
    boxes = torch.tensor([[40.0, 24.0, 103.0, 55.0], [7.5, 8.0, 23.0, 15.25]])
    points = torch.tensor([[[60.0, 50.0], [90.0, 30.0], [41.0, 24.0]], [[12.0, 10.0], [9.0, 9.0], [20.0, 14.0]]])
    labels = torch.tensor([[POSITIVE, NEGATIVE, POSITIVE], [NEGATIVE, NO_POINT, NO_POINT]])
    found = click_maps(points, labels, boxes, side)
    expected = torch.zeros(2, 4, side, side, dtype=torch.float64)
    for row, (x_min, y_min, x_max, y_max) in enumerate(boxes.tolist()):
        y, x = torch.meshgrid(*[torch.arange(side, dtype=torch.float64) + 0.5] * 2, indexing="ij")
        for (px, py), label in zip(points[row].tolist(), labels[row].tolist(), strict=True):
            if label != NO_POINT:
                at = [(p + 0.5 - a) / (b + 1 - a) * side for p, a, b in ((px, x_min, x_max), (py, y_min, y_max))]
                squares = (x - at[0]) ** 2 + (y - at[1]) ** 2
                for k, radius in enumerate((2, 10)):
                    channel = expected[row, k + (0 if label == POSITIVE else 2)]
                    channel.copy_(torch.maximum(channel, (-squares / (2 * radius**2)).exp()))
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)
    assert not found[1, :2].any()  # nothing positive


def test_a_click_is_brightest_where_it_is():
    box, side = torch.tensor([[32.0, 64.0, 95.0, 127.0]]), 64  # a pixel of the view for each of the frame
    maps = click_maps(torch.tensor([[[40.0, 70.0]]]), torch.tensor([[POSITIVE]]), box, side)
    assert maps[0, 0, 6, 8] == maps[0, 1, 6, 8] == 1 and (maps == 1).sum() == 2
    assert not click_maps(None, None, box, side).any() and click_maps(None, None, box, side).shape == (1, 4, 64, 64)


@pytest.mark.parametrize("on", [True, False])
def test_checkpoints_record_whether_it_is_on(tmp_path, on):
    stored = build_mcp_medsam(**OFF, mask_correction=on)
    torch.nn.init.ones_(stored.mask_correction.head.weight)
    torch.save(stored.state_dict(), tmp_path / "model.pt")
    network = build_mcp_medsam(mask_correction=not on)
    assert not load_checkpoint(network, tmp_path / "model.pt").missing
    assert network.mask_correction.on is network.takes_clicks is on and network.mask_correction.head.weight.all()


@pytest.mark.parametrize(
    ("stored", "asked", "expected"), [(None, True, True), (True, None, True), (True, False, False)]
)
def test_start_of_a_training(stored, asked, expected, tmp_path):
    path = tmp_path / "model.pt"
    if stored is not None:
        torch.save(build_mcp_medsam(**OFF, mask_correction=stored).state_dict(), path)
    network = build_mcp_medsam(**OFF)
    start_network(network, "lite_medsam" if stored is None else path, keep_components=True, mask_correction=asked)
    assert network.mask_correction.on is expected and not network.prompt_encoder.click_tokens
