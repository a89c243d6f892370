"""Training with clicks through ``train.json``, and that nothing of it remains with ``clicks`` 0."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ignite.engine import Events
from monai.bundle import create_workflow

from custom.checkpoints import load_checkpoint
from custom.lite_medsam import lite_medsam_path
from custom.networks import build_mcp_medsam

TRAIN = str(Path(__file__).parents[2] / "bundle" / "configs" / "train.json")
TRAINED = ["mask_correction"]
OPTIONS = {"clip": "none", "content_cnn": False, "modality_embedding": False, "freeze_image_encoder": True}
OPTIONS |= {"device": "cpu", "num_workers": 0, "silent": True, "val_slices": 1, "val_masks": 1, "epochs": 1}


def workflow(folder, dataset, **options):
    places = {"ckpt_dir": str(folder), "output_dir": str(folder / "eval"), "dataset_dir": str(dataset)}
    made = create_workflow(config_file=TRAIN, workflow_type="train", **places, **OPTIONS, **options)
    losses = []

    def note(_):
        losses.append(made.parser.get_parsed_content("loss_function").log())

    made.trainer.add_event_handler(Events.ITERATION_COMPLETED, note)
    return made, losses


@pytest.mark.slow
def test_corrections_learn(two_cases, tmp_path):
    options = {"clicks": 2, "trained": TRAINED, "epoch_length": 12, "batch_size": 2, "same_masks": True, "warmup": 1}
    options |= {"refinement_lr": 0.003, "flip_prob": 0.0, "embedding_cache": str(tmp_path / "cache"), "box_shift": 20}
    made, losses = workflow(tmp_path, two_cases, **options)
    made.run()
    first, last = losses[0], losses[-3:]
    assert first["dice after 0"] == first["dice after 1"] == first["dice after 2"]  # it starts as identity
    gains = [line["dice after 0"] - line["dice after 2"] for line in last]
    assert sum(gains) > 0, losses
    trained, start = build_mcp_medsam(), build_mcp_medsam()
    load_checkpoint(trained, tmp_path / "model.pt")
    loaded = load_checkpoint(start, lite_medsam_path()).matched
    assert trained.mask_correction.on and trained.takes_clicks and not trained.prompt_encoder.click_tokens
    found, expected = trained.state_dict(), start.state_dict()
    for name in loaded:
        assert torch.equal(found[name], expected[name]), name


@pytest.mark.slow
def test_clicks_in_place_of_boxes_learn_in_the_decoder(two_cases, tmp_path):
    options = {"clicks": 2, "click_first": 0.5, "click_tokens": True, "epoch_length": 2, "batch_size": 2}
    made, losses = workflow(tmp_path, two_cases, **options)
    made.run()
    assert {"dice after 0", "dice after 1", "dice after 2"} < losses[-1].keys()
    trained = build_mcp_medsam()
    load_checkpoint(trained, tmp_path / "model.pt")
    assert trained.prompt_encoder.click_tokens and trained.mask_correction.on


def test_without_clicks_nothing_of_it_remains(two_cases, tmp_path):
    made, losses = workflow(tmp_path, two_cases, epoch_length=1, batch_size=1)
    steps = [type(step).__name__ for step in made.trainer.data_loader.dataset.transform.transforms]
    assert "RandViewsd" not in steps and made.trainer.prepare_batch.clicks is None
    calls, network = [], made.trainer.network

    def forward(image, prompts, **options):
        if options:  # a training step; a validation has none
            calls.append((prompts, options))
        return type(network).forward(network, image, prompts, **options)

    network.forward = forward
    made.run()
    ((prompts, options),) = calls
    assert options == {"full_output": True} and prompts.views is None and not prompts.correcting
    assert losses[0].keys() == {"loss", "bce", "dice", "iou"}
    assert not network.takes_clicks
