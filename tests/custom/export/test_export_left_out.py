"""An export lists what it lacks without a CLIP."""

import pytest
import torch

from custom.export.__main__ import load
from custom.lite_medsam import lite_medsam_path


@pytest.mark.parametrize(
    ("table", "switches", "left_out"),
    [
        (True, {}, ("clip_image",)),  # the text is a table in the weights
        (False, {}, ("clip_text", "clip_image")),
        (True, {"clip_image": False}, ()),
        (False, {"clip_text": False}, ("clip_image",)),
    ],
)
def test_what_the_weights_use(lively_network, switch, table, switches, left_out, tmp_path):
    state = dict(switch(lively_network, **switches).state_dict())
    if not table:
        state["prompt_encoder.text_table"] = torch.zeros_like(state["prompt_encoder.text_table"])
    torch.save(state, tmp_path / "model.pt")
    network, found = load(tmp_path / "model.pt")
    assert found == left_out
    assert not network.components.clip_image and network.components.clip_text == (table and "clip_text" not in switches)


def test_lite_medsam_uses_none():
    network, left_out = load(lite_medsam_path())
    assert left_out == () and not any(vars(network.components).values())
