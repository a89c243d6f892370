import json
import logging
import urllib.error

import pytest
import torch

from custom.errors import InputError
from custom.networks import clip as clip_module
from custom.networks import load_clip
from custom.networks.clip import PUBMED_CLIP, clip_width

TEXTS = ["CT Image", "X-Ray Image"]


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    """An empty hub cache, and no network."""
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(clip_module, "_hub_answers", lambda endpoint: False)


def test_transformers_folder(tiny_clip_folder):
    from transformers import AutoTokenizer, CLIPModel

    model = CLIPModel.from_pretrained(tiny_clip_folder).eval()
    tokens = AutoTokenizer.from_pretrained(tiny_clip_folder)(TEXTS, padding=True, return_tensors="pt")
    crop = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        image, text = model.get_image_features(pixel_values=crop), model.get_text_features(**tokens)
    image, text = (getattr(value, "pooler_output", value) for value in (image, text))  # by version of transformers

    clip = load_clip(str(tiny_clip_folder))
    assert clip.width == 16
    torch.testing.assert_close(clip.encode_image(crop), image)
    torch.testing.assert_close(clip.encode_text(TEXTS), text)
    assert not torch.allclose(text[0], text[1])
    boxes = clip.encode_image(crop.unsqueeze(0).expand(3, -1, -1, -1, -1))  # BxNx3x224x224
    torch.testing.assert_close(boxes, image.expand(3, -1, -1))


def test_stays_frozen(tiny_clip_folder):
    clip = load_clip(str(tiny_clip_folder)).train()
    assert not any(module.training for module in clip.modules())
    assert not any(parameter.requires_grad for parameter in clip.parameters())
    assert not clip.encode_image(torch.rand(1, 3, 224, 224)).requires_grad


@pytest.fixture(scope="module")
def open_clip_folder(tmp_path_factory):
    open_clip = pytest.importorskip("open_clip")
    folder = tmp_path_factory.mktemp("open_clip")
    vision = {"image_size": 224, "layers": 1, "width": 32, "head_width": 16, "patch_size": 112}
    text = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    config = {"model_cfg": {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False).eval()
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    return folder, model


def test_open_clip_folder(open_clip_folder):
    import open_clip

    folder, model = open_clip_folder
    clip = load_clip(str(folder))
    crop = torch.rand(2, 3, 224, 224)
    assert clip.width == 16
    with torch.no_grad():
        torch.testing.assert_close(clip.encode_image(crop), model.encode_image(crop))
        tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS)
        torch.testing.assert_close(clip.encode_text(TEXTS), model.encode_text(tokens))


def test_open_clip_without_weights_is_an_error(open_clip_folder, tmp_path):
    (tmp_path / "open_clip_config.json").write_text((open_clip_folder[0] / "open_clip_config.json").read_text())
    with pytest.raises(InputError, match="clip: .*weights"):  # not random ones
        load_clip(str(tmp_path))


def test_open_clip_name(monkeypatch, open_clip_folder):
    import open_clip

    asked = []

    def create_model(architecture, pretrained, **options):
        asked.append((architecture, pretrained, options))
        return open_clip_folder[1]

    monkeypatch.setattr(open_clip, "create_model", create_model)
    monkeypatch.setattr(open_clip, "get_tokenizer", lambda name: lambda texts: torch.ones(len(texts), 16).long())
    clip = load_clip("open_clip:ViT-B-32:/folder/weights.pt")
    assert clip.encode_text(TEXTS).shape == (2, 16)
    load_clip("open_clip:ViT-B-32")
    required = {"require_pretrained": True}
    assert asked == [("ViT-B-32", "/folder/weights.pt", required), ("ViT-B-32", None, required)]


@pytest.mark.parametrize("name", ["none", None])
def test_none(name):
    assert load_clip(name) is None


def test_width_of_the_features(tiny_clip_folder, monkeypatch):
    assert clip_width(str(tiny_clip_folder)) == 16
    monkeypatch.setattr(clip_module, "_load", lambda name: pytest.fail("PubMedCLIP is not asked for"))
    assert [clip_width(name) for name in ("auto", "none", None)] == [512] * 3


def test_auto_without_network(no_hub, caplog):
    with caplog.at_level(logging.WARNING):
        assert load_clip("auto") is None
    (record,) = (r for r in caplog.records if r.levelno >= logging.WARNING)
    message = record.getMessage()
    assert PUBMED_CLIP in message and "--clip /path/to/folder" in message and "\n" not in message


@pytest.mark.parametrize(
    "name", [PUBMED_CLIP, "no/such/folder", "./missing", "/missing/folder", "open_clip:none:x", ""]
)
def test_a_clip_asked_for_by_name(no_hub, name):
    with pytest.raises(InputError) as error:
        load_clip(name)
    message = str(error.value)
    assert message.startswith(f"clip: {name}: found ") and "--clip /path/to/folder" in message and "\n" not in message


def test_folder_without_a_clip(tmp_path):
    with pytest.raises(InputError, match=f"clip: {tmp_path}"):
        load_clip(str(tmp_path))


def test_auto_from_the_cache_and_from_the_hub(monkeypatch, tiny_clip_folder):
    import huggingface_hub

    cached, asked = True, []

    def snapshot_download(name, *, local_files_only=False, **_):
        asked.append((name, local_files_only))
        if local_files_only and not cached:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not cached")
        return str(tiny_clip_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(clip_module, "_hub_answers", lambda endpoint: True)
    assert load_clip("auto").width == 16 and asked == [(PUBMED_CLIP, True)]
    cached = False
    assert load_clip("auto").width == 16 and asked[1:] == [(PUBMED_CLIP, True), (PUBMED_CLIP, False)]


@pytest.mark.parametrize(
    ("raised", "answers"),
    [
        (None, True),
        (urllib.error.HTTPError("https://hub", 401, "", {}, None), True),
        (urllib.error.URLError("no network"), False),
        (TimeoutError(), False),
    ],
)
def test_the_hub_is_asked_once_and_briefly(monkeypatch, raised, answers):
    calls = []

    class Page:
        def close(self):
            pass

    def urlopen(address, timeout):
        calls.append((address, timeout))
        if raised is not None:
            raise raised
        return Page()

    monkeypatch.setattr(clip_module.urllib.request, "urlopen", urlopen)
    assert clip_module._hub_answers("https://hub") is answers
    ((address, timeout),) = calls
    assert address == "https://hub" and timeout <= 10
