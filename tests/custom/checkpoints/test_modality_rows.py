import pytest
import torch

from custom.checkpoints import load_checkpoint, modality_rows
from custom.checkpoints.loading import read_state_dict
from custom.checkpoints.modality_rows import append_modalities
from custom.errors import InputError
from custom.lite_medsam import lite_medsam_path
from custom.modalities import MODALITIES, modality_texts
from custom.networks import PromptComponents, build_mcp_medsam, load_clip
from custom.prompts import Prompts

TWELVE = (*MODALITIES, "Thermography")


@pytest.fixture(scope="module")
def grown(shared_lively_network, tmp_path_factory):
    """The lively network with a twelfth modality, through a file."""
    path = tmp_path_factory.mktemp("grown") / "grown.pt"
    torch.save({"model": append_modalities(shared_lively_network.state_dict(), modalities=TWELVE)}, path)
    network = build_mcp_medsam(num_modalities=12).eval()
    assert not load_checkpoint(network, path).missing
    return network


@pytest.fixture(scope="module")
def inputs():
    torch.manual_seed(2)
    boxes = torch.tensor([[[20, 30, 140, 200]], [[5, 5, 80, 60]]])
    crop = torch.rand(2, 1, 3, 64, 64)
    return torch.randn(2, 256, 64, 64), Prompts(boxes=boxes, crops=crop, image_features=torch.randn(2, 1, 512))


def test_the_eleven_stay_as_they_are(lively_network, grown, inputs):
    embedding, prompts = inputs
    prompts = prompts._replace(modality=torch.tensor([0, 10]))
    with torch.no_grad():
        before = lively_network.decode(embedding, prompts)
        after = grown.decode(embedding, prompts)
    assert torch.equal(before.mask_logits, after.mask_logits) and torch.equal(before.iou, after.iou)
    # Same rows; a product with one row more may be summed in another order.
    torch.testing.assert_close(after.modality_logits[:, :11], before.modality_logits, rtol=1e-6, atol=1e-6)
    assert torch.equal(after.modality_logits.argmax(dim=1), before.modality_logits.argmax(dim=1))


def test_the_twelfth_begins_as_unknown(lively_network, grown, inputs):
    embedding, prompts = inputs
    with torch.no_grad():
        unknown = lively_network.decode(embedding, prompts)
        still_unknown = grown.decode(embedding, prompts)
        twelfth = grown.decode(embedding, prompts._replace(modality=torch.tensor([11, 11])))
    for output in (still_unknown, twelfth):
        torch.testing.assert_close(output.mask_logits, unknown.mask_logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(twelfth.modality_logits[:, 11], twelfth.modality_logits[:, :11].mean(dim=1))


def test_the_twelfth_can_learn(grown, inputs):
    names = ("prompt_encoder.modality_embed.weight", "mask_decoder.modality_head.fc2.weight")
    parameters = [grown.get_parameter(name) for name in names]
    assert all(len(p) == 12 and p.requires_grad for p in parameters)
    embedding, prompts = inputs
    first = prompts.map(lambda value: value[:1])._replace(modality=torch.tensor([11]))
    output = grown.decode(embedding[:1], first)
    loss = output.mask_logits.mean() + output.modality_logits.softmax(dim=1)[:, 11].log().mean()
    for gradient in torch.autograd.grad(loss, parameters):
        assert gradient[11].abs().max() > 0


def test_rows_of_several_new_modalities(lively_network):
    state = lively_network.state_dict()
    grown = append_modalities(state, modalities=(*TWELVE, "Hologram"))
    changed = {name for name in grown if grown[name].shape != state[name].shape}
    assert len(changed) == 4 and grown.keys() == state.keys()
    for name in changed:
        assert torch.equal(grown[name][:11], state[name])
        torch.testing.assert_close(grown[name][11:], state[name].mean(dim=0).expand_as(grown[name][11:]))


def test_text_of_the_new_modality(tiny_clip_folder, lively_network):
    clip = load_clip(str(tiny_clip_folder))
    state = lively_network.state_dict() | {"prompt_encoder.text_table": clip.encode_text(modality_texts())}
    table = append_modalities(state, modalities=TWELVE, clip=clip)["prompt_encoder.text_table"]
    torch.testing.assert_close(table, clip.encode_text(modality_texts(TWELVE)))
    assert not append_modalities(
        state | {"prompt_encoder.text_table": torch.zeros(11, 16)}, modalities=TWELVE, clip=clip
    )["prompt_encoder.text_table"].any()  # made by the start of the training, as for the others
    with pytest.raises(InputError, match="clip: found other features than those stored for CT, .*; allowed: the CL"):
        append_modalities(lively_network.state_dict(), modalities=TWELVE, clip=clip)


def test_published_layout(reference, tmp_path):
    extra = torch.load(reference / "upstream_layout_extra.pth", weights_only=True)
    tensors = {name: value.float() for name, value in (read_state_dict(lite_medsam_path()) | extra).items()}
    torch.save(append_modalities(tensors, modalities=TWELVE), tmp_path / "grown.pt")
    network = build_mcp_medsam(num_modalities=12, content_cnn=False)
    report = load_checkpoint(network, tmp_path / "grown.pt")
    assert not report.missing and network.components == PromptComponents()
    embedding = network.prompt_encoder.modality_embed.weight
    assert torch.equal(embedding[:11], tensors["prompt_encoder.categories.weight"])
    assert not network.prompt_encoder.text_table.any()


@pytest.mark.parametrize(("names", "found"), [(MODALITIES, "found 11"), (MODALITIES[:9], "found 9")])
def test_no_new_name(lively_network, names, found):
    with pytest.raises(InputError, match=rf"modalities: {found}; allowed: more than the checkpoint's 11; append"):
        append_modalities(lively_network.state_dict(), modalities=names)


def test_networks_without_modalities():
    with pytest.raises(InputError, match="found LiteMedSAM; allowed: MCP-MedSAM; LiteMedSAM has no modalities"):
        append_modalities(read_state_dict(lite_medsam_path()), modalities=TWELVE)
    with pytest.raises(InputError, match="found another network's"):
        append_modalities({"weight": torch.zeros(1)}, modalities=TWELVE)


def test_command(shared_lively_network, tmp_path, monkeypatch, capsys):
    torch.save({"model": shared_lively_network.state_dict()}, tmp_path / "old.pt")
    arguments = ["grow", str(tmp_path / "old.pt"), "--out", str(tmp_path / "new" / "grown.pt")]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit, match="error: .*old.pt: modalities: found 11; allowed: more"):
        modality_rows.main()
    monkeypatch.setattr(modality_rows, "MODALITIES", TWELVE)
    modality_rows.main()
    assert capsys.readouterr().out.endswith("Microscopy, Thermography\n")
    assert not load_checkpoint(build_mcp_medsam(num_modalities=12), tmp_path / "new" / "grown.pt").missing
