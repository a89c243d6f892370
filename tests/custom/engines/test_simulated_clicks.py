import numpy as np
import pytest
import torch

from custom.clicks import error_click, view_boxes
from custom.engines import PromptPrepareBatch, SimulatedClicks
from custom.networks import MCPMedSAMOutput
from custom.networks.frame_views import crop_frame
from custom.prompts import NEGATIVE, NO_BOX, NO_POINT, POSITIVE, Prompts

WHOLE = torch.tensor([0.0, 0.0, 255.0, 191.0])


@pytest.fixture
def batch():
    """Two images of three objects each: label, and the prompts of their boxes."""
    torch.manual_seed(0)
    label = torch.zeros(2, 3, 256, 256)
    for i in range(6):
        x, y = 20 + 30 * i, 10 + 25 * i
        label[i // 3, i % 3, y : y + 12 + i, x : x + 20 - i] = 1
    boxes = torch.tensor([[20 + 30 * i, 10 + 25 * i, 39 + 29 * i, 21 + 26 * i] for i in range(6)]).float().view(2, 3, 4)
    prompts = Prompts(
        boxes=boxes,
        crops=torch.rand(2, 3, 3, 8, 8),
        views=torch.rand(2, 3, 3, 16, 16),
        view_boxes=boxes + torch.tensor([-9.0, -9.0, 9.0, 9.0]),
        modality=torch.tensor([3, -1]),
    )
    return torch.rand(2, 3, 256, 256), prompts, label, WHOLE.expand(2, 3, 4)


def answer(label, shift=(4, 3)):
    """A mask beside the object, in logits of no simple size."""
    logits = torch.where(label.roll(shift, (2, 3)) > 0, 2.5, -3.25)
    return MCPMedSAMOutput(logits, torch.zeros(label.shape[:2]), None, None, None)


def passes(rules, batch, shifts=((4, 3), (2, 2), (1, 0), (3, 3))):
    """The prompts of all passes; the mask of pass k is the object moved by ``shifts[k]``."""
    image, prompts, label, image_boxes = batch
    prompts, correcting = rules.start(image, prompts, label, image_boxes)
    found = [prompts]
    while (following := correcting(found[-1], answer(label, shifts[len(found) - 1]))) is not None:
        found.append(following)
    return found


@pytest.mark.parametrize("clicks", [1, 3])
@pytest.mark.parametrize("click_first", [0.0, 0.5])
def test_one_pass_and_one_for_each_click(batch, clicks, click_first):
    found = passes(SimulatedClicks(clicks=clicks, click_first=click_first), batch)
    assert len(found) == 1 + clicks
    first = 0 if found[0].points is None else 1
    assert [p.points.shape[2] for p in found[1:]] == [first + k + 1 for k in range(clicks)]


def test_without_click_first_the_boxes_are_the_first_prompts(batch):
    image, prompts, label, image_boxes = batch
    found, _ = SimulatedClicks(clicks=2).start(image, prompts, label, image_boxes)
    for name, value in found._asdict().items():
        assert value is (None if name in ("views", "view_boxes") else getattr(prompts, name)), name


def test_clicks_lie_on_errors_of_the_last_mask(batch):
    label = batch[2]
    shifts = ((4, 3), (2, 2), (1, 0), (0, 0))
    found = passes(SimulatedClicks(clicks=3), batch, shifts)
    for k, prompts in enumerate(found[1:]):
        mask = answer(label, shifts[k]).mask_logits > 0
        assert torch.equal(prompts.boxes, batch[1].boxes)
        for b, n in np.ndindex(2, 3):
            x, y = prompts.points[b, n, k].int().tolist()
            kind = prompts.point_labels[b, n, k]
            assert (label[b, n, y, x] > 0, mask[b, n, y, x]) == ((True, False) if kind == POSITIVE else (False, True))
        assert torch.equal(prompts.points[:, :, :k], found[k].points if k else prompts.points[:, :, :0])


def test_centred_clicks_are_those_of_the_error(batch):
    label = batch[2]
    (_, prompts) = passes(SimulatedClicks(clicks=1, centred=1.0), batch)
    mask, truth = (answer(label).mask_logits > 0).numpy(), label.numpy() > 0
    for b, n in np.ndindex(2, 3):
        x, y, kind = error_click(mask[b, n], truth[b, n])
        assert prompts.points[b, n, 0].tolist() == [x, y] and prompts.point_labels[b, n, 0] == kind


def test_a_right_mask_gets_no_click(batch):
    found = passes(SimulatedClicks(clicks=2), batch, shifts=((0, 0), (4, 3), (0, 0)))
    assert (found[1].point_labels == NO_POINT).all()
    assert (found[2].point_labels[..., 0] == NO_POINT).all() and (found[2].point_labels[..., 1] >= NEGATIVE).all()


def test_one_click_in_place_of_a_box(batch):
    image, given, label, _ = batch
    first, looking, second = passes(SimulatedClicks(clicks=2, click_first=1.0), batch)
    assert (first.boxes == NO_BOX).all() and (first.point_labels == POSITIVE).all()
    for prompts in (first, looking, second):
        x, y = prompts.points[:, :, 0].long().unbind(-1)
        assert (label.flatten(2).gather(2, (256 * y + x)[..., None]) == 1).all()  # inside the object
    for prompts in (first, looking, second):  # what the decoder sees stays
        assert torch.equal(prompts.crop_boxes, WHOLE.expand(2, 3, 4)) and (prompts.boxes == NO_BOX).all()
        torch.testing.assert_close(prompts.crops, crop_frame(image, WHOLE.expand(2, 3, 4), 8))

    # The second pass adds no click: it looks closer at the first mask.
    assert (looking.point_labels[..., 1] == NO_POINT).all() and (second.point_labels[..., 2] != NO_POINT).all()
    for prompts, shift in ((looking, (4, 3)), (second, (2, 2))):
        mask = label.roll(shift, (2, 3)) > 0
        for b, n in np.ndindex(2, 3):
            y, x = mask[b, n].nonzero().T
            clicks = prompts.points[b, n][prompts.point_labels[b, n] != NO_POINT]
            low = np.minimum([x.min(), y.min()], clicks.amin(0))
            high = np.maximum([x.max(), y.max()], clicks.amax(0))
            small, large = (view_boxes(np.array([[*low, *high]]), (192, 256), margin)[0] for margin in (0.1, 0.5))
            found = prompts.view_boxes[b, n].numpy()
            assert (found[:2] >= large[:2]).all() and (found[:2] <= small[:2]).all()
            assert (found[2:] <= large[2:]).all() and (found[2:] >= small[2:]).all()
        torch.testing.assert_close(prompts.views, crop_frame(image, prompts.view_boxes, 16))


def test_some_objects_are_clicked_first(batch):
    _, given, _, _ = batch
    torch.manual_seed(2)
    first, looking = passes(SimulatedClicks(clicks=1, click_first=0.5), batch)
    chosen = first.boxes[..., 2] == NO_BOX
    assert chosen.any() and not chosen.all()
    assert torch.equal(first.point_labels[..., 0] == POSITIVE, chosen)
    assert (first.point_labels[~chosen] == NO_POINT).all()
    for found in (first, looking):
        for name in ("boxes", "crops", "views", "view_boxes")[: 2 if found is first else 4]:
            assert torch.equal(getattr(found, name)[~chosen], getattr(given, name)[~chosen]), name
        assert torch.equal(found.crop_boxes[~chosen], given.boxes[~chosen])
    assert torch.equal(looking.point_labels[..., 1] == NO_POINT, chosen)


def test_an_object_too_small_for_the_frame(batch):
    """It keeps its box: there is no pixel to click on."""
    batch[2].zero_()
    first, _ = passes(SimulatedClicks(clicks=1, click_first=1.0), batch)
    assert first.points is None and torch.equal(first.boxes, batch[1].boxes)


@pytest.mark.parametrize(("probability", "share"), [(0.0, 0), (1.0, 6)])
def test_the_mask_before_is_given_or_not(batch, probability, share):
    rules = SimulatedClicks(clicks=1, previous_mask=probability, moved_mask=0.0)
    _, prompts = passes(rules, batch)
    given = prompts.masks.flatten(2).any(dim=2)
    assert given.sum() == share
    if share:
        assert torch.equal(prompts.masks, answer(batch[2]).mask_logits)


def test_a_moved_mask_is_that_of_a_user(batch):
    image, prompts, label, image_boxes = batch
    rules = SimulatedClicks(clicks=1, previous_mask=1.0, moved_mask=1.0)
    _, correcting = rules.start(image, prompts, label, image_boxes)
    output = answer(label)
    expected = output.mask_logits.clone()
    masks = correcting(prompts, output).masks
    assert set(masks.unique().tolist()) == {-10.0, 10.0}
    for b, n in np.ndindex(2, 3):
        mask = output.mask_logits[b, n] > 0
        moved = [mask.roll((y - 6, x - 6), (0, 1)) for y, x in np.ndindex(13, 13)]
        assert sum(torch.equal(m, masks[b, n] > 0) for m in moved) == 1
    assert torch.equal(output.mask_logits, expected)  # what the loss sees is not moved


def test_the_same_seed_the_same_prompts(batch):
    rules = SimulatedClicks(clicks=3, click_first=0.5, moved_mask=0.5)
    runs = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        runs.append(passes(rules, batch))
    for one, other in zip(runs[0], runs[1], strict=True):
        assert all(a is b is None or torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not torch.equal(runs[0][-1].points, runs[2][-1].points)


def test_no_gradient_through_the_prompts(batch):
    image, prompts, label, image_boxes = batch
    _, correcting = SimulatedClicks(clicks=1, previous_mask=1.0).start(image, prompts, label, image_boxes)
    output = answer(label)
    output.mask_logits.requires_grad_()
    following = correcting(prompts, output)
    assert not any(value.requires_grad for value in following if value is not None)


def test_prepared_batch(batch):
    image, prompts, label, image_boxes = batch
    data = {"image": image, "label": label, "boxes": prompts.boxes, "crop": prompts.crops}
    data |= {"views": prompts.views, "view_boxes": prompts.view_boxes, "image_boxes": image_boxes}
    data |= {"modality_index": prompts.modality}
    rules = SimulatedClicks(clicks=1)
    _, target, (found,), options = PromptPrepareBatch(clicks=rules)(data, "cpu")
    assert options.keys() == {"full_output", "next_prompts"} and target.keys() == {"label", "modality"}
    assert found.views is None and not found.correcting
    following = options["next_prompts"](found, answer(label))
    assert following.points.shape == (2, 3, 1, 2)
    assert following.views is prompts.views and following.view_boxes is prompts.view_boxes
    assert options["next_prompts"](following, answer(label)) is None
    _, _, (found,), options = PromptPrepareBatch(clicks=rules, full_output=False)(data, "cpu")
    assert options == {} and found.views is None  # a validation prompts once
