from itertools import product

import pytest
import torch

from custom.networks import PromptComponents

NAMES = ("clip_text", "modality_embedding", "clip_image", "content_cnn")


@pytest.mark.parametrize("values", product([False, True], repeat=4))
def test_tensor_round_trip(values):
    components = PromptComponents(**dict(zip(NAMES, values, strict=True)))
    stored = components.to_tensor()
    assert stored.tolist() == list(map(int, values)) and stored.dtype == torch.uint8
    assert PromptComponents.from_tensor(stored) == components
    assert components.modality_prompt == any(values[:2]) and components.content_prompt == any(values[2:])
