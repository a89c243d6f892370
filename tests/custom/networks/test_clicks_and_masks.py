"""Clicks and masks as prompts: their encoding, padding, and what runs again when they are added."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from custom.checkpoints import load_checkpoint, start_network
from custom.lite_medsam import lite_medsam_path
from custom.networks import PromptComponents, build_mcp_medsam
from custom.prompts import NEGATIVE, NO_BOX, NO_POINT, POSITIVE, Prompts

OFF = {"clip_text": False, "clip_image": False}
BOXES = torch.tensor([[[20.0, 30.0, 90.0, 200.0], [5.5, 8.0, 40.0, 44.0], [NO_BOX] * 4]])
POINTS = torch.tensor([[[[0.0, 0.0], [0.0, 0.0]], [[30.0, 20.0], [0.0, 0.0]], [[90.0, 60.0], [120.0, 80.0]]]])
LABELS = torch.tensor([[[NO_POINT, NO_POINT], [POSITIVE, NO_POINT], [POSITIVE, NEGATIVE]]])


@pytest.fixture(autouse=True)
def no_grad():
    torch.manual_seed(1)
    with torch.no_grad():
        yield


@pytest.fixture
def network(lively_network, switch):
    """The shared network with a correction, mask scale and click tokens that may be changed; restored afterwards."""
    parts = [lively_network.mask_correction.head.weight, lively_network.mask_correction.iou_head.weight]
    parts.append(lively_network.prompt_encoder.mask_scale)
    yield switch(lively_network, **OFF, content_cnn=False)
    lively_network.mask_correction.on = lively_network.prompt_encoder.click_tokens = False
    for part in parts:
        part.zero_()


@pytest.fixture
def correcting(network):
    network.mask_correction.on = True
    for layer in (network.mask_correction.head, network.mask_correction.iou_head):
        layer.weight.normal_()
    return network


@pytest.fixture
def embedding():
    return torch.randn(1, 256, 64, 64)


@pytest.fixture
def decoded(network, monkeypatch):
    """The number of objects in each run of the decoder."""
    runs, forward = [], network.mask_decoder.forward
    monkeypatch.setattr(
        network.mask_decoder, "forward", lambda image, *given: runs.append(len(image)) or forward(image, *given)
    )
    return runs


def viewed(prompts, side=16):
    """Prompts with views of the whole frame."""
    batch, n = prompts.boxes.shape[:2]
    whole = torch.tensor([0.0, 0.0, 255.0, 255.0]).expand(batch, n, 4)
    return prompts._replace(views=torch.rand(batch, n, 3, side, side), view_boxes=whole)


def close(found, expected, tolerance=1e-5):
    """Compare logits relative to the largest."""
    torch.testing.assert_close(found, expected, atol=tolerance * float(expected.abs().max()), rtol=0)


def test_points_are_encoded_as_sam_does(lively_network):
    encoder = lively_network.prompt_encoder
    points = np.array([[10.0, 20.0], [255.0, 0.0], [77.25, 131.5]])
    labels = torch.tensor([[POSITIVE, NEGATIVE, NO_POINT]])
    phase = 2 * np.pi * ((2 * (points + 0.5) / 256 - 1) @ encoder.position.frequencies.double().numpy())
    expected = np.concatenate([np.sin(phase), np.cos(phase)], axis=1)
    expected[:2] += encoder.point_embed.flip(0).double().numpy()
    expected[2] = encoder.no_point_embed[0].double().numpy()
    found = encoder.point_tokens(torch.from_numpy(points).float()[None], labels)[0]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


def test_both_corners_of_no_box_are_no_points(lively_network):
    tokens = lively_network.prompt_encoder.box_tokens(BOXES[0])
    assert torch.equal(tokens[2], lively_network.prompt_encoder.no_point_embed.expand(2, -1))
    assert not torch.isclose(tokens[0], tokens[2]).all()


def test_tokens_by_name_in_the_published_order(lively_network):
    boxes, modality = BOXES[0, :1], torch.tensor([2])
    prompts = Prompts(boxes=boxes, points=POINTS[0, 2:], point_labels=LABELS[0, 1:2], modality=modality)
    prompts = prompts._replace(content=torch.zeros(1, 256, 64, 64))
    encoded = lively_network.prompt_encoder(prompts)
    assert {name: value.shape[1] for name, value in encoded.tokens.items()} == {
        "box": 2,
        "points": 2,
        "content": 1,
        "modality": 1,
    }
    assert encoded.absent.tolist() == [[False, False, False, True, False, False]] and encoded.mask is None
    assert lively_network.prompt_encoder(prompts._replace(points=None)).absent is None


def test_each_object_alone_and_among_others_with_more_clicks(network, embedding):
    network.prompt_encoder.click_tokens = True
    together = network.decode(embedding, Prompts(boxes=BOXES, points=POINTS, point_labels=LABELS))
    for n in range(3):
        alone = Prompts(boxes=BOXES[:, n : n + 1])
        if n:
            alone = alone._replace(points=POINTS[:, n : n + 1, :n], point_labels=LABELS[:, n : n + 1, :n])
        alone = network.decode(embedding, alone)
        close(together.mask_logits[:, n], alone.mask_logits[:, 0])
        torch.testing.assert_close(together.iou[:, n], alone.iou[:, 0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("click_tokens", [False, True])
def test_only_padding_is_no_clicks(correcting, embedding, click_tokens):
    correcting.prompt_encoder.click_tokens = click_tokens
    prompts = viewed(Prompts(boxes=BOXES[:, :2]))
    padded = prompts._replace(points=POINTS[:, :2], point_labels=torch.full((1, 2, 2), NO_POINT))
    found, expected = (correcting.decode(embedding, given) for given in (padded, prompts))
    close(found.mask_logits, expected.mask_logits)
    torch.testing.assert_close(found.iou, expected.iou, atol=1e-4, rtol=1e-4)


def test_clicks_have_a_say_in_the_decoder(network, embedding):
    network.prompt_encoder.click_tokens = True
    prompts = Prompts(boxes=BOXES, points=POINTS, point_labels=LABELS)
    first = network.decode(embedding, prompts).mask_logits
    for other in (POINTS.flip(-1), POINTS + torch.tensor([3.0, 0.0])):
        change = (network.decode(embedding, prompts._replace(points=other)).mask_logits - first).abs().amax(dim=(2, 3))
        assert change[0, 0] < 1e-5 * first.abs().max() and (change[0, 1:] > 1e-3).all()


def test_without_click_tokens_the_decoder_sees_the_first_click_of_objects_without_box(network, embedding):
    prompts = Prompts(boxes=BOXES, points=POINTS, point_labels=LABELS)
    found = network.decode(embedding, prompts._replace(masks=torch.randn(1, 3, 256, 256))).mask_logits
    close(found[:, :2], network.decode(embedding, Prompts(boxes=BOXES[:, :2])).mask_logits)
    network.prompt_encoder.click_tokens = True
    first = prompts._replace(points=POINTS[:, :, :1], point_labels=LABELS[:, :, :1])
    close(found[:, 2], network.decode(embedding, first).mask_logits[:, 2])
    assert (found[:, 2] - network.decode(embedding, prompts).mask_logits[:, 2]).abs().max() > 1e-3


def test_a_mask_counts_by_its_scale(network, embedding):
    network.prompt_encoder.click_tokens = True
    boxes = Prompts(boxes=BOXES[:, :2])
    masks = torch.zeros(1, 2, 256, 256)
    masks[0, 1] = torch.randn(256, 256)
    plain = network.decode(embedding, boxes).mask_logits
    assert torch.equal(network.decode(embedding, boxes._replace(masks=masks)).mask_logits, plain)
    network.prompt_encoder.mask_scale.fill_(1.0)
    found = network.decode(embedding, boxes._replace(masks=masks)).mask_logits
    assert torch.equal(found[:, 0], plain[:, 0])  # zeros are no mask
    assert (found[:, 1] - plain[:, 1]).abs().max() > 1e-3


def test_masks_are_encoded_on_the_grid_of_the_embedding(network):
    encoder, masks = network.prompt_encoder, torch.zeros(2, 256, 256)
    masks[1, 40:44, 80:84] = 5.0
    encoder.mask_scale.fill_(2.0)
    found = encoder.mask_map(masks)
    assert found.shape == (2, 256, 64, 64) and not found[0].any()
    bounded = (masks[1:, None] / 2).tanh()
    torch.testing.assert_close(found[1:], 2 * encoder.mask_encoder(bounded))
    differs = (found[1] != found[1, :, :1, :1]).any(dim=0)
    assert differs.nonzero().tolist() == [[10, 20]]  # patches of four pixels


def test_boxes_alone_are_never_corrected(correcting, embedding):
    prompts = viewed(Prompts(boxes=BOXES[:, :2]))
    found = correcting.decode(embedding, prompts)
    correcting.mask_correction.on = False
    expected = correcting.decode(embedding, prompts)
    assert torch.equal(found.mask_logits, expected.mask_logits) and torch.equal(found.iou, expected.iou)


@pytest.mark.parametrize("objects", [slice(0, 2), slice(0, 3)])
def test_an_answer_saves_the_decoder(correcting, embedding, decoded, objects):
    """With a box for each object, or a click for one of them: the first click is part of the answer."""
    clicked = viewed(Prompts(boxes=BOXES, points=POINTS, point_labels=LABELS, masks=torch.randn(1, 3, 256, 256)))
    clicked = clicked.map(lambda value: value[:, objects])
    n = clicked.boxes.shape[1]
    answer = correcting.decode(embedding, clicked._replace(views=None))
    found = correcting.decode(embedding, clicked, answer=answer)
    assert decoded == [n]
    expected = correcting.decode(embedding, clicked)
    assert decoded == [n, n]
    assert torch.equal(found.mask_logits, expected.mask_logits) and torch.equal(found.iou, expected.iou)
    assert not torch.equal(found.mask_logits, answer.mask_logits) and not torch.equal(found.iou, answer.iou)


def test_with_click_tokens_an_answer_does_not_hold(correcting, embedding, decoded):
    correcting.prompt_encoder.click_tokens = True
    box = viewed(Prompts(boxes=BOXES[:, 1:2]))
    clicked = box._replace(points=POINTS[:, 2:], point_labels=LABELS[:, 2:])
    found = correcting.decode(embedding, clicked, answer=correcting.decode(embedding, box))
    expected = correcting.decode(embedding, clicked)
    assert decoded == [1, 1, 1] and torch.equal(found.mask_logits, expected.mask_logits)


def test_correction_works_on_the_decoders_mask(correcting, embedding):
    box = viewed(Prompts(boxes=BOXES[:, :2]))
    clicked = box._replace(points=POINTS[:, 1:], point_labels=LABELS[:, 1:])
    answer, found = correcting.decode(embedding, box), correcting.decode(embedding, clicked)
    rows = clicked.map(lambda value: value[0])
    logits, iou = correcting.mask_correction(
        answer.mask_logits[0], rows.views, rows.view_boxes, rows.points, rows.point_labels
    )
    torch.testing.assert_close(found.mask_logits[0], logits)
    torch.testing.assert_close(found.iou[0], answer.iou[0] + iou)


def test_without_views_nothing_is_corrected(correcting, embedding, monkeypatch):
    box = Prompts(boxes=BOXES[:, :2])
    prompts = box._replace(points=POINTS[:, :2], point_labels=LABELS[:, :2])
    answer = correcting.decode(embedding, prompts)
    assert torch.equal(answer.mask_logits, correcting.decode(embedding, box).mask_logits)
    monkeypatch.setattr(correcting, "encode_image", lambda image: embedding)
    found = correcting.predict(torch.rand(1, 3, 256, 256), prompts)  # views are cut out of the frame
    assert torch.equal(found.mask_logits[:, 0], answer.mask_logits[:, 0])
    assert (found.mask_logits[:, 1] - answer.mask_logits[:, 1]).abs().max() > 1e-3


def test_clicks_and_labels_belong_together(network, embedding):
    prompts = Prompts(boxes=BOXES, points=POINTS)
    with pytest.raises(ValueError, match=r"^point_labels: found None; allowed: \(1, 3, P\)"):
        network.decode(embedding, prompts)
    with pytest.raises(ValueError, match=r"^point_labels: found shape \(1, 3, 1\); allowed: \(1, 3, 2\)"):
        network.decode(embedding, prompts._replace(point_labels=LABELS[..., :1]))


def test_content_computed_before(lively_network, switch, embedding):
    network = switch(lively_network, **OFF)
    prompts = Prompts(boxes=BOXES[:, :2], crops=torch.rand(1, 2, 3, 16, 16))
    content = network.prompt_encoder.content_map(prompts.crops[0])[None]
    found = network.decode(embedding, prompts._replace(content=content)).mask_logits
    assert torch.equal(found, network.decode(embedding, prompts).mask_logits)


def test_next_prompts_until_none(correcting, embedding, decoded, monkeypatch):
    encoded, seen = [], []
    monkeypatch.setattr(correcting, "encode_image", lambda image: encoded.append(1) or embedding)
    box = viewed(Prompts(boxes=BOXES[:, :2]))
    clicked = box._replace(points=POINTS[:, 1:], point_labels=LABELS[:, 1:])

    def following(prompts, output):
        seen.append((prompts, output))
        return clicked if len(seen) < 3 else None

    outputs = correcting(torch.rand(1, 3, 256, 256), box, next_prompts=following)
    assert len(outputs) == 3 and encoded == [1] and decoded == [2]
    assert all(output is wanted for (_, output), wanted in zip(seen, outputs, strict=True))
    assert seen[0][0].points is None and seen[1][0] is seen[2][0] is clicked
    for output, prompts in ((outputs[0], box), (outputs[2], clicked)):
        torch.testing.assert_close(output.mask_logits, correcting.decode(embedding, prompts).mask_logits)


@pytest.mark.parametrize("on", [True, False])
def test_click_tokens_survive_a_checkpoint(tmp_path, on):
    stored = build_mcp_medsam(**OFF, content_size=32)
    stored.prompt_encoder.click_tokens = on
    torch.save(stored.state_dict(), tmp_path / "model.pt")
    network = build_mcp_medsam()
    network.prompt_encoder.click_tokens = not on
    assert not load_checkpoint(network, tmp_path / "model.pt").missing
    assert network.prompt_encoder.click_tokens is network.takes_clicks is on
    assert network.prompt_encoder.content_size == 32 and not network.components.clip_text


@pytest.mark.parametrize(
    ("stored", "asked", "expected"), [(True, None, True), (True, False, False), (False, True, True)]
)
def test_start_of_a_training(tmp_path, stored, asked, expected):
    network = build_mcp_medsam(**OFF)
    network.prompt_encoder.click_tokens = stored
    torch.save(network.state_dict(), tmp_path / "model.pt")
    start_network(network, tmp_path / "model.pt", click_tokens=asked)
    assert network.prompt_encoder.click_tokens is expected


def test_checkpoints_from_before_clicks(tmp_path):
    added = ("point_embed", "no_point_embed", "mask_encoder.", "mask_scale")
    added = (*(f"prompt_encoder.{name}" for name in added), "mask_correction.")
    values = build_mcp_medsam(**OFF).state_dict()
    tensors = {name: value for name, value in values.items() if not name.startswith(added)}
    switches = "prompt_encoder._extra_state"
    tensors[switches] = tensors[switches][: len(fields(PromptComponents)) + 1]  # with the content size
    torch.save(tensors, tmp_path / "model.pt")
    network = build_mcp_medsam(mask_correction=True)
    network.prompt_encoder.click_tokens = True
    torch.nn.init.ones_(network.mask_correction.head.weight)
    report = load_checkpoint(network, tmp_path / "model.pt")
    assert not report.missing and not report.left_out and not network.takes_clicks
    encoder = network.prompt_encoder
    zero = (encoder.point_embed, encoder.no_point_embed, encoder.mask_scale, network.mask_correction.head.weight)
    assert not any(parameter.any() for parameter in zero)


def test_checkpoint_that_lacks_a_part_of_them(tmp_path):
    tensors = build_mcp_medsam(**OFF).state_dict()
    del tensors["prompt_encoder.point_embed"]
    torch.save(tensors, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="'prompt_encoder.point_embed'"):
        load_checkpoint(build_mcp_medsam(), tmp_path / "model.pt")


def test_published_vectors(lite_network):
    """LiteMedSAM has them under the names of the published network; its masks start without effect."""
    published, encoder = torch.load(lite_medsam_path(), weights_only=True), lite_network.prompt_encoder
    for row in (NEGATIVE, POSITIVE):
        assert torch.equal(encoder.point_embed[row], published[f"prompt_encoder.point_embeddings.{row}.weight"][0])
    assert torch.equal(encoder.no_point_embed, published["prompt_encoder.not_a_point_embed.weight"])
    for name, value in encoder.mask_encoder.state_dict().items():
        assert torch.equal(value, published[f"prompt_encoder.mask_downscaling.{name}"]), name
    assert not encoder.mask_scale.any() and not lite_network.takes_clicks
