import pytest
import torch

from custom.checkpoints import load_weights, start_network
from custom.errors import InputError
from custom.modalities import modality_texts
from custom.networks import PromptComponents, build_mcp_medsam, load_clip


@pytest.fixture
def clip(tiny_clip_folder):
    return load_clip(str(tiny_clip_folder))


@pytest.fixture
def forbid_clip(monkeypatch):
    """Fail if a CLIP is loaded."""
    monkeypatch.setattr(load_weights, "load_clip", lambda name: pytest.fail("no CLIP is needed"))


def saved(network, path):
    torch.save({"model": network.state_dict()}, path)
    return path


def test_text_table_is_made_once_and_kept(clip, tmp_path, monkeypatch):
    network = build_mcp_medsam(clip_width=16)
    assert start_network(network, "lite_medsam", clip, keep_components=True) is clip
    table = network.prompt_encoder.text_table
    torch.testing.assert_close(table, clip.encode_text(modality_texts()))
    assert table.std(dim=0).min() > 0  # the rows differ

    path = saved(network, tmp_path / "model.pt")
    second = build_mcp_medsam(clip_width=16)
    monkeypatch.setattr(clip.text_tower, "forward", lambda texts: pytest.fail("no text tower is needed"))
    assert start_network(second, path, clip) is clip
    assert torch.equal(second.prompt_encoder.text_table, table)


def test_name_of_the_clip(tiny_clip_folder):
    network = build_mcp_medsam(clip_width=16, clip_image=False)
    assert (
        start_network(network, "lite_medsam", str(tiny_clip_folder), keep_components=True) is None
    )  # only its text was needed
    assert network.prompt_encoder.text_table.any() and network.components.clip_text


# content size of the checkpoint (none in LiteMedSAM's), requested, and expected; the network has 48
@pytest.mark.parametrize("stored, asked, expected", [(32, None, 32), (32, 16, 16), (None, None, 48), (None, 16, 16)])
def test_content_size(stored, asked, expected, tmp_path, forbid_clip):
    off = {"clip_text": False, "clip_image": False}
    path = "lite_medsam"
    if stored is not None:
        path = saved(build_mcp_medsam(**off, content_size=stored), tmp_path / "model.pt")
    network = build_mcp_medsam(**off, content_size=48)
    start_network(network, path, keep_components=True, content_size=asked)
    assert network.prompt_encoder.content_size == expected


def test_lite_medsam_has_no_new_prompts(forbid_clip):
    network = build_mcp_medsam()
    assert start_network(network, "lite_medsam", "auto") is None
    assert not any(vars(network.components).values())


def test_no_clip(tmp_path):
    network = build_mcp_medsam()
    assert start_network(network, "lite_medsam", "none", keep_components=True) is None
    expected = PromptComponents(clip_text=False, modality_embedding=True, clip_image=False, content_cnn=True)
    assert network.components == expected


def test_stored_table_serves_without_a_clip(lively_network, tmp_path):
    network = build_mcp_medsam()
    assert start_network(network, saved(lively_network, tmp_path / "model.pt"), None) is None
    assert network.components == PromptComponents(clip_image=False)  # CLIP text stays on
    assert torch.equal(network.prompt_encoder.text_table, lively_network.prompt_encoder.text_table)


def test_clip_is_loaded_only_if_needed(lively_network, switch, forbid_clip, tmp_path):
    path = saved(switch(lively_network, clip_image=False), tmp_path / "model.pt")
    assert start_network(build_mcp_medsam(), path, "auto") is None
    network = build_mcp_medsam(clip_text=False, clip_image=False)
    assert start_network(network, "lite_medsam", "auto", keep_components=True) is None


def test_switches_of_the_checkpoint_win(lively_network, switch, tmp_path):
    path = saved(switch(lively_network, clip_image=False, content_cnn=False), tmp_path / "model.pt")
    network = build_mcp_medsam(modality_embedding=False)
    start_network(network, path)
    assert network.components == PromptComponents(clip_image=False, content_cnn=False)


def test_errors(tmp_path):
    with pytest.raises(InputError, match=r"missing\.pt: checkpoint: found no file"):
        start_network(build_mcp_medsam(), tmp_path / "missing.pt")
    with pytest.raises(InputError, match="clip: /no/folder"):
        start_network(build_mcp_medsam(), "lite_medsam", "/no/folder", keep_components=True)


@pytest.mark.parametrize("keep", [False, True])
def test_components_of_the_checkpoint_or_of_the_training(keep, tmp_path):
    trained = PromptComponents(clip_text=False, clip_image=False, content_cnn=False)
    path = saved(build_mcp_medsam(clip_text=False, clip_image=False, content_cnn=False), tmp_path / "model.pt")
    network = build_mcp_medsam(clip_text=False, clip_image=False)
    start_network(network, path, keep_components=keep)
    assert network.components == (PromptComponents(clip_text=False, clip_image=False) if keep else trained)
