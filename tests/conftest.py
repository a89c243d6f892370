import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from custom.checkpoints import load_checkpoint
from custom.data.prepared import load_dataset
from custom.lite_medsam import lite_medsam_path
from custom.networks import build_mcp_medsam
from data_prep.pipeline import prepare
from data_prep.readers import READERS

# Beside the repository's folder; not part of the repository.
REFERENCE = Path(__file__).resolve().parents[2] / "shared" / "reference"


def pytest_configure(config):
    """Give each parallel worker one core, also for the processes that it starts."""
    if hasattr(config, "workerinput"):
        torch.set_num_threads(1)
        os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Exports are made in the tests' folder, once for all workers, not in the user's cache."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    os.environ["MCP_MEDSAM_CACHE"] = str(root / "mcp-medsam-cache")


@pytest.fixture(scope="session")
def reference():
    """Folder with the published network's inputs and outputs."""
    if not REFERENCE.is_dir():
        pytest.skip("the reference files are not there")
    return REFERENCE


@pytest.fixture(scope="session")
def shared_lite_network():
    """All components on, LiteMedSAM's weights, evaluation mode. Shared, since building it takes a second."""
    network = build_mcp_medsam().eval()
    load_checkpoint(network, lite_medsam_path())
    return network


@pytest.fixture
def lite_network(shared_lite_network):
    """The shared network; its switches are reset afterwards; nothing else may be changed."""
    components = shared_lite_network.components
    yield shared_lite_network
    shared_lite_network.prompt_encoder.components = components


@pytest.fixture(scope="session")
def shared_lively_network():
    """All components on and nothing zero, so that every component affects the result; no trained weights."""
    torch.manual_seed(0)
    network = build_mcp_medsam().eval()
    with torch.no_grad():
        network.prompt_encoder.text_table.normal_()
        for module in (network.prompt_encoder, network.mask_decoder):
            for name, parameter in module.named_parameters():
                if name.endswith("weight") and parameter.ndim > 1:
                    nn.init.xavier_normal_(parameter)
    return network


@pytest.fixture
def lively_network(shared_lively_network):
    """The shared network; its switches are reset afterwards; nothing else may be changed."""
    components = shared_lively_network.components
    yield shared_lively_network
    shared_lively_network.prompt_encoder.components = components


@pytest.fixture
def switch():
    """Return a function that sets some switches of a network."""

    def set_switches(network, **switches):
        network.prompt_encoder.components = replace(network.components, **switches)
        return network

    return set_switches


@pytest.fixture(scope="session")
def prepared_demo(tmp_path_factory):
    """The phantom set of all modalities, as made by the command line."""
    root = tmp_path_factory.mktemp("demo")
    prepare(READERS["demo"](), root, progress=False)
    return load_dataset(root)


@pytest.fixture(scope="session")
def tiny_clip_folder(tmp_path_factory):
    """Folder with a CLIP of transformers' layout, one layer and 16 wide, that tokenises texts letter by letter."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("tiny_clip")
    letters = [chr(code) for code in range(33, 127)]
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = {"tokenizer_class": "CLIPTokenizer", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    size, end = len(vocabulary), len(vocabulary) - 1
    text = tower | {"vocab_size": size, "max_position_embeddings": 32}
    text |= {"bos_token_id": end - 1, "eos_token_id": end, "pad_token_id": end}
    vision = tower | {"image_size": 224, "patch_size": 112}
    torch.manual_seed(0)
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    transformers.CLIPModel(config).save_pretrained(folder)
    return folder
