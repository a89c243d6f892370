"""The published network's checkpoint layout and outputs, reproduced; all tests share one pass of the image encoder."""

import numpy as np
import pytest
import torch

from custom.checkpoints import load_checkpoint
from custom.checkpoints.loading import PUBLISHED
from custom.lite_medsam import lite_medsam_path
from custom.networks import build_mcp_medsam
from custom.prompts import Prompts


@pytest.fixture(scope="module")
def loaded(reference, tmp_path_factory):
    """The network with LiteMedSAM's and the reference's tensors, read from one file of the published layout."""
    lite = torch.load(lite_medsam_path(), weights_only=True)
    extra = torch.load(reference / "upstream_layout_extra.pth", weights_only=True)
    rows = [line.split("\t") for line in (reference / "upstream_state_dict.txt").read_text().splitlines()]
    tensors = {name: lite[name] if origin == "lite" else extra[name] for name, _, _, origin in rows}
    tensors = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
    path = tmp_path_factory.mktemp("published") / "published.pth"
    torch.save({"model": tensors, "epoch": 24}, path)
    network = build_mcp_medsam().eval()
    return network, load_checkpoint(network, path)


@pytest.fixture(scope="module")
def io(reference):
    with np.load(reference / "upstream_layout_io.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.fixture(scope="module")
def embedding(loaded, io):
    with torch.no_grad():
        return loaded[0].encode_image(io["image"].float())


@pytest.fixture(scope="module")
def output(loaded, io, embedding):
    """The result of ``predict``, computed from the embedding of the image."""
    network = loaded[0]
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(network, "encode_image", lambda image: embedding)
        prompts = Prompts(
            boxes=io["boxes"][:, 0],  # Bx1x1x4 -> Bx1x4
            modality=io["modality_index"],
            crops=io["crop"].float(),
            image_features=io["image_feature"],
            text_features=io["text_feature"],
        )
        return network.predict(io["image"].float(), prompts)


def close(found, expected, atol):
    torch.testing.assert_close(found, expected.float(), atol=atol, rtol=0)


def test_report(loaded):
    _, report = loaded
    assert report.layout == PUBLISHED and report.missing == ()
    # two corners and two kinds of points become one tensor each; the other three masks' networks are not used
    unused = tuple(f"mask_decoder.output_hypernetworks_mlps.{i}." for i in (1, 2, 3))
    assert all(name.startswith(unused) for name in report.left_out)
    assert len(report.matched) + 2 + len(report.left_out) == 509


def test_image_embedding(embedding, io):
    close(embedding[:, :, ::16, ::16], io["image_embedding_rows"], 1e-4)


@pytest.mark.parametrize("name", ["mask_logits", "iou", "modality_logits", "sparse_content", "dense_content"])
def test_output(output, io, name):
    close(getattr(output, name), io[name], 1e-3 if name == "mask_logits" else 1e-4)


def test_prompts(loaded, io):
    with torch.no_grad():
        prompts = Prompts(
            boxes=io["boxes"].reshape(-1, 4).float(),
            modality=io["modality_index"],
            crops=io["crop"].float(),
            image_features=io["image_feature"][:, 0],  # Bx1xF -> BxF
            text_features=io["text_feature"][:, 0],
        )
        encoded = loaded[0].prompt_encoder(prompts)
    close(torch.cat(list(encoded.tokens.values()), dim=1), io["sparse"], 1e-4)
    close(encoded.dense.mean(dim=(2, 3)), io["dense_mean"], 1e-4)


def test_lite_medsam(loaded, embedding, io, lite_network, switch):
    with_extra, plain = (n.image_encoder.state_dict() for n in (loaded[0], lite_network))
    assert with_extra.keys() == plain.keys() and all(torch.equal(with_extra[k], plain[k]) for k in plain)
    network = switch(lite_network, clip_text=False, modality_embedding=False, clip_image=False, content_cnn=False)
    with torch.no_grad():
        output = network.decode(embedding, Prompts(boxes=io["boxes"][:, 0]))
    close(output.mask_logits, io["lite_mask_logits"].reshape(2, 1, 256, 256), 1e-3)
    close(output.iou, io["lite_iou"].reshape(2, 1), 1e-4)
