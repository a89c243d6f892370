"""``monai.bundle.load`` returns a network that is ready to segment, and loads no CLIP that the weights do not use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ignite.engine import Events
from monai.bundle import create_workflow

from custom.networks import build_mcp_medsam

ROOT = Path(__file__).parents[2]
CODE = """
import sys, warnings
warnings.filterwarnings("ignore", "parsing config_file")  # MONAI's own, for every bundle
import monai.bundle
kind, folder, weights = sys.argv[1:]
network = monai.bundle.load("bundle", bundle_dir=folder, workflow_type=kind, source="github", model_file=weights,
                            net_override={"freeze_image_encoder": True, "num_modalities": 11})
assert not any(module.training for module in network.modules())
assert network.components.content_cnn and not network.components.clip_image and not network.components.clip_text
assert not any(parameter.requires_grad for parameter in network.image_encoder.parameters())
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    torch.save(build_mcp_medsam(clip_text=False, clip_image=False).state_dict(), path)
    return path


@pytest.mark.parametrize("kind", ["train", "inference"])
def test_load(kind, weights, tmp_path):
    """Without a hub cache, and without access to the hub."""
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-W", "default", "-c", CODE, kind, ROOT, weights]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for word in ("CLIP", "WARNING", "UserWarning"):
        assert word not in done.stdout + done.stderr, done.stdout + done.stderr


def test_training_trains(small_set, tmp_path):
    """The network starts in evaluation mode."""
    options = {"clip": "none", "device": "cpu", "num_workers": 0, "silent": True, "batch_size": 1, "epochs": 1}
    places = {"dataset_dir": str(small_set), "output_dir": str(tmp_path), "ckpt_dir": str(tmp_path)}
    config = str(ROOT / "bundle" / "configs" / "train.json")
    trainer = create_workflow(config_file=config, workflow_type="train", **options, **places).trainer
    before = trainer.network.training
    modes = []

    def note(engine):
        modes.append({module.training for module in engine.network.modules()})
        engine.terminate()

    trainer.add_event_handler(Events.ITERATION_COMPLETED, note)
    trainer.run()
    assert not before and modes == [{True}]
    assert trainer.network.image_encoder.patch_embed[0].bn.num_batches_tracked > 0
