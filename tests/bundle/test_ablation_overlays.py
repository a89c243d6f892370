"""Every overlay of ``configs/ablation``: what it changes, and that it trains and evaluates."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, run

from custom.checkpoints import load_checkpoint
from custom.networks import PromptComponents, build_mcp_medsam

CONFIGS = Path(__file__).parents[2] / "bundle" / "configs"
PUBMED_CLIP = "flaviagiammarino/pubmed-clip-vit-base-patch32"
COMPONENTS = ("clip_text", "modality_embedding", "clip_image", "content_cnn")
ALL = (True, True, True, True)
# Name -> components, CLIP, sampling, encoder (None: LiteMedSAM's).
OVERLAYS = {
    # Table 3; LiteMedSAM trained on the same samples is no_prompts.
    "no_prompts": ((False, False, False, False), "none", "modality", None),
    "no_clip_text": ((False, True, True, True), PUBMED_CLIP, "modality", None),
    "no_modality_embedding": ((True, False, True, True), PUBMED_CLIP, "modality", None),
    "modality_prompt_only": ((True, True, False, False), PUBMED_CLIP, "modality", None),
    "no_clip_image": ((True, True, False, True), PUBMED_CLIP, "modality", None),
    "no_content_cnn": ((True, True, True, False), PUBMED_CLIP, "modality", None),
    "content_prompt_only": ((False, False, True, True), PUBMED_CLIP, "modality", None),
    "proposed": (ALL, PUBMED_CLIP, "modality", None),
    # Table 4
    "encoder_scratch": (ALL, PUBMED_CLIP, "modality", "scratch"),
    "encoder_natural": (ALL, PUBMED_CLIP, "modality", "timm/tiny_vit_5m_224.dist_in22k_ft_in1k"),
    "clip_natural": (ALL, "openai/clip-vit-base-patch32", "modality", None),
    # Table 5
    "sampling_slice": (ALL, PUBMED_CLIP, "slice", None),
    "sampling_case": (ALL, PUBMED_CLIP, "case", None),
}
FAST = ("encoder_scratch",)


def configs(name: str, *more: str) -> list[str]:
    return [str(CONFIGS / file) for file in ("train.json", f"ablation/{name}.json", *more)]


def test_every_overlay_is_listed_here():
    assert {path.stem for path in (CONFIGS / "ablation").iterdir()} == OVERLAYS.keys()


@pytest.mark.parametrize("name", OVERLAYS)
def test_what_an_overlay_sets(name, tiny_clip_folder):
    components, clip, sampling, encoder = OVERLAYS[name]
    parser = ConfigParser()
    parser.read_config(configs(name))
    assert (parser.get_parsed_content("clip_towers#name"), parser["sampling"]) == (clip, sampling)
    parser["natural_clip" if name == "clip_natural" else "clip"] = str(tiny_clip_folder)
    assert tuple(parser.get_parsed_content(component) for component in COMPONENTS) == components
    if encoder is None:
        assert parser["checkpoint"] == "lite_medsam"
    else:
        assert parser.get_parsed_content("checkpoint#encoder") == encoder


@pytest.fixture(scope="module")
def natural_weights(tmp_path_factory):
    """The weights of a network of timm, in place of those of its hub."""
    path = tmp_path_factory.mktemp("timm") / "weights.pth"
    torch.save(timm.create_model("tiny_vit_5m_224").state_dict(), path)
    return path


@pytest.mark.parametrize("name", OVERLAYS)
def test_properties(name, two_cases, natural_weights, tiny_clip_folder, tmp_path):
    clip = {"natural_clip" if name == "clip_natural" else "clip": str(tiny_clip_folder)}
    options = clip | ({"encoder_weights": str(natural_weights)} if name == "encoder_natural" else {})
    places = {"dataset_dir": str(two_cases), "output_dir": str(tmp_path), "ckpt_dir": str(tmp_path)}
    workflow = ConfigWorkflow(configs(name), workflow_type="train", device="cpu", **options, **places)
    workflow.initialize()
    assert workflow.check_properties() == []


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in OVERLAYS]
)
def test_overlay_trains_and_evaluates(name, two_cases, natural_weights, tiny_clip_folder, tmp_path):
    components, clip, _, encoder = OVERLAYS[name]
    options = {"dataset_dir": str(two_cases), "ckpt_dir": str(tmp_path / "ckpt"), "num_workers": 0}
    options |= {"val_slices": 1, "val_masks": 1, "freeze_image_encoder": True, "device": "cpu"}
    options |= {} if clip == "none" else {"natural_clip" if name == "clip_natural" else "clip": str(tiny_clip_folder)}
    steps = {"batch_size": 1, "epochs": 1, "epoch_length": 2}
    natural = {"encoder_weights": str(natural_weights)} if name == "encoder_natural" else {}
    run("training", config_file=configs(name), output_dir=str(tmp_path / "train"), **options, **steps, **natural)
    run("evaluating", config_file=configs(name, "evaluate.json"), output_dir=str(tmp_path / "eval"), **options)
    network = build_mcp_medsam(clip_width=512 if clip == "none" else 16)
    load_checkpoint(network, tmp_path / "ckpt" / "model.pt")
    assert network.components == PromptComponents(**dict(zip(COMPONENTS, components, strict=True)))
    trained, tested = (json.loads((tmp_path / d / "summary.json").read_text())["mean"] for d in ("train", "eval"))
    assert trained == tested and np.isfinite(list(tested.values())).all()
    if encoder is not None:
        start = build_mcp_medsam(clip_width=16)
        load_checkpoint(start, tmp_path / "train" / "start.pt")
        weight = start.image_encoder.stages[2].blocks[0].mlp.fc1.weight
        assert torch.equal(network.image_encoder.stages[2].blocks[0].mlp.fc1.weight, weight)  # it was frozen
