from itertools import product

import pytest
import torch

from custom.networks import build_mcp_medsam
from custom.prompts import Prompts

SWITCHES = ("clip_text", "modality_embedding", "clip_image", "content_cnn")
BOXES = torch.tensor([[[20.0, 30.0, 90.0, 200.0], [0.0, 0.0, 255.0, 255.0]], [[5.5, 8, 40, 44], [100, 20, 220, 60]]])


@pytest.fixture(autouse=True)
def no_grad():
    torch.manual_seed(1)
    with torch.no_grad():
        yield


@pytest.fixture
def prompts():
    """Prompts of two boxes in each of two images; small crops, since they are cheap."""
    return Prompts(
        boxes=BOXES,
        modality=torch.tensor([3, 7]),
        crops=torch.rand(2, 2, 3, 8, 8),
        image_features=torch.randn(2, 2, 512),
    )


def one_of(prompts, i=0, j=0):
    """The prompts of object j on image i."""
    return prompts.map(lambda value: value[i : i + 1] if value.ndim == 1 else value[i : i + 1, j : j + 1])


@pytest.fixture
def embedding():
    return torch.randn(2, 256, 64, 64)


@pytest.fixture
def encoder(lively_network, monkeypatch):
    """Replace the network's image encoder by a cheap one; returns the list of its inputs."""
    calls = []

    def encode(image):
        calls.append(image)
        return image.mean(dim=1, keepdim=True)[:, :, ::4, ::4].expand(-1, 256, -1, -1)

    monkeypatch.setattr(lively_network.image_encoder, "forward", encode)
    return calls


@pytest.mark.parametrize("values", product([False, True], repeat=4))
def test_every_switch_combination(lively_network, switch, embedding, prompts, values):
    on = dict(zip(SWITCHES, values, strict=True))
    network = switch(lively_network, **on)
    output = network.decode(embedding[:1], one_of(prompts))
    assert output.mask_logits.shape == (1, 1, 256, 256) and output.iou.shape == (1, 1)
    assert torch.isfinite(output.mask_logits).all()
    shapes = {
        "modality_logits": (1, 11) if on["clip_text"] or on["modality_embedding"] else None,
        "sparse_content": (1, 256) if on["clip_image"] else None,
        "dense_content": (1, 256) if on["content_cnn"] else None,
    }
    for name, shape in shapes.items():
        value = getattr(output, name)
        assert (None if value is None else tuple(value.shape)) == shape, name


def test_each_component_has_a_say(lively_network, switch, embedding, prompts):
    everything = lively_network.decode(embedding[:1], one_of(prompts)).mask_logits
    for name in SWITCHES:
        without = switch(lively_network, **{name: False}).decode(embedding[:1], one_of(prompts)).mask_logits
        assert (everything - without).abs().max() > 1e-3, name
        switch(lively_network, **{name: True})


def test_boxes_together_and_one_at_a_time(lively_network, embedding, prompts):
    together = lively_network.decode(embedding, prompts)
    for i, j in ((0, 1), (1, 0)):
        alone = lively_network.decode(embedding[i : i + 1], one_of(prompts, i, j))
        torch.testing.assert_close(together.mask_logits[i, j], alone.mask_logits[0, 0], atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(together.iou[i, j], alone.iou[0, 0], atol=1e-4, rtol=1e-4)
        for name in ("modality_logits", "sparse_content", "dense_content"):
            row = getattr(together, name)[2 * i + j]
            torch.testing.assert_close(row, getattr(alone, name)[0], atol=1e-4, rtol=1e-4)


def test_a_value_of_an_image_serves_all_its_boxes(lively_network, switch, embedding):
    switch(lively_network, content_cnn=False)
    feature = torch.randn(1, 512)
    shapes = (feature, feature[:, None], feature[:, None].expand(1, 2, 512))  # BxF, Bx1xF, BxNxF
    given = (Prompts(boxes=BOXES[:1], image_features=f) for f in shapes)
    a, b, c = (lively_network.decode(embedding[:1], prompts).sparse_content for prompts in given)
    assert torch.equal(a, b) and torch.equal(a, c) and torch.equal(a[0], a[1])


def test_encoder_runs_once_for_all_boxes(lively_network, switch, encoder, prompts):
    image = torch.rand(2, 3, 256, 256)
    output = switch(lively_network, content_cnn=False)(image, prompts, full_output=True)
    assert len(encoder) == 1 and encoder[0] is image
    assert output.mask_logits.shape == (2, 2, 256, 256)


def test_image_alone(lively_network, switch, encoder):
    network, image = switch(lively_network, content_cnn=False), torch.rand(2, 3, 256, 256)
    found = network(image)
    assert found.shape == (2, 1, 256, 256)
    whole = torch.tensor([[0, 0, 255, 255]]).expand(2, 4)
    defaults = Prompts(boxes=whole, modality=torch.tensor([-1, -1]), image_features=torch.zeros(2, 512))
    torch.testing.assert_close(network(image, defaults), found)


def test_default_crop_is_cut_out_of_the_frame(lively_network, encoder, monkeypatch):
    image, crops = torch.rand(1, 3, 256, 256), []
    cnn = lively_network.prompt_encoder.content_cnn
    monkeypatch.setattr(cnn, "forward", lambda crop: crops.append(crop) or torch.zeros(1, 256, 64, 64))
    lively_network(image, Prompts(boxes=torch.tensor([[40, 192, 103, 255]])))  # 64 pixels per side: no resampling
    torch.testing.assert_close(crops[0], image[:, :, 192:256, 40:104])


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("image", (3, 256, 256)),
        ("image", (2, 1, 256, 256)),
        ("image", (2, 3, 256, 255)),
        ("boxes", (2, 2, 5)),
        ("boxes", (3, 2, 4)),
        ("boxes", (4,)),
        ("modality", (1,)),
        ("modality", (2, 2)),
        ("crops", (2, 3, 3, 8, 8)),
        ("crops", (2, 2, 1, 8, 8)),
        ("crops", (3, 8, 8)),
        ("image_features", (2, 2, 768)),
        ("image_features", (512,)),
        ("text_features", (1, 2, 512)),
        ("text_features", (2, 768)),
        ("points", (2, 2, 1, 3)),
        ("points", (2, 3, 1, 2)),
        ("point_labels", (2, 3, 1)),
        ("masks", (2, 2, 64, 64)),
        ("masks", (256, 256)),
        ("crop_boxes", (2, 2, 5)),
        ("content", (2, 2, 256, 32, 32)),
        ("views", (2, 2, 1, 8, 8)),
        ("view_boxes", (2, 3, 4)),
    ],
)
def test_wrong_shape(lively_network, encoder, prompts, name, shape):
    dtype = torch.long if name == "modality" else torch.float32
    image, wrong = torch.rand(2, 3, 256, 256), torch.zeros(shape, dtype=dtype)
    if name == "points":
        prompts = prompts._replace(point_labels=torch.ones(shape[:-1]))
    image, prompts = (wrong, prompts) if name == "image" else (image, prompts._replace(**{name: wrong}))
    found = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
    with pytest.raises(ValueError, match=rf"^{name}: found shape \({found}\); allowed: \((2|B)") as error:
        lively_network(image, prompts)
    assert "\n" not in str(error.value)


def test_decode_needs_the_crops(lively_network, embedding):
    with pytest.raises(ValueError, match="^crops: found None"):
        lively_network.decode(embedding, Prompts(boxes=BOXES))


def test_unknown_modality_is_the_mean_row(lively_network):
    encoder = lively_network.prompt_encoder
    text, embedding = encoder.text_table.mean(dim=0), encoder.modality_embed.weight.mean(dim=0)
    expected = encoder.modality_mlp(torch.cat([encoder.text_mlp(text), embedding]))
    found = encoder.modality_token(torch.tensor([-1, 4, -7]), None)
    torch.testing.assert_close(found[0], expected)
    assert torch.equal(found[0], found[2]) and not torch.allclose(found[0], found[1])


def test_text_is_looked_up_in_the_table(lively_network):
    encoder = lively_network.prompt_encoder
    index = torch.tensor([5, 0])
    found = encoder.modality_token(index, None)
    torch.testing.assert_close(found, encoder.modality_token(index, encoder.text_table[index]))


@pytest.mark.parametrize(("off", "ignored"), [("clip_text", "text_feature"), ("modality_embedding", "modality")])
def test_half_of_the_modality_prompt(lively_network, switch, off, ignored):
    encoder = switch(lively_network, **{off: False}).prompt_encoder
    index, text = torch.tensor([1]), torch.randn(1, 512)
    found = encoder.modality_token(index, text)
    other = (index, torch.randn(1, 512)) if ignored == "text_feature" else (torch.tensor([9]), text)
    assert torch.equal(found, encoder.modality_token(*other))


def test_fourier_encoding(lively_network):
    encoding = lively_network.prompt_encoder.position
    xy = torch.tensor([0.25, 0.75])
    phase = 2 * torch.pi * (2 * xy - 1) @ encoding.frequencies
    torch.testing.assert_close(encoding(xy), torch.cat([phase.sin(), phase.cos()]))
    torch.testing.assert_close(encoding.grid(2)[0, :, 1, 0], encoding(xy))  # row 1, column 0
    box = torch.tensor([[63.5, 191.5, 63.5, 191.5]])
    corners = encoding(xy) + lively_network.prompt_encoder.corner_embed
    torch.testing.assert_close(lively_network.prompt_encoder.box_tokens(box)[0], corners)


def test_frozen_image_encoder():
    network = build_mcp_medsam(freeze_image_encoder=True).train()
    assert network.mask_decoder.training and not any(module.training for module in network.image_encoder.modules())
    assert not any(parameter.requires_grad for parameter in network.image_encoder.parameters())
    assert all(parameter.requires_grad for parameter in network.mask_decoder.parameters())
