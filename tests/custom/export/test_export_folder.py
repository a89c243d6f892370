import json

import pytest

from custom.errors import InputError
from custom.export.folder import DESCRIPTION, FORMAT, VERSION, read_description

GRAPH = {"inputs": {"image": [1, 3, 256, 256]}, "outputs": {"embedding": [1, 256, 64, 64]}}
CONTENT = {
    "format": FORMAT,
    "version": VERSION,
    "checkpoint": "model.pt",
    "digest": "0" * 16,
    "precision": "f32",
    "components": dict.fromkeys(("clip_text", "modality_embedding", "clip_image", "content_cnn"), True),
    "modalities": ["CT", "MR"],
    "crop_size": 64,
    "clip_width": 512,
    "takes_clicks": True,
    "click_tokens": False,
    "graphs": {"encoder": GRAPH, "content": GRAPH, "decoder": GRAPH, "click_decoder": GRAPH, "correction": GRAPH},
    "left_out": ["clip_image"],
    "made_with": {"torch": "2"},
}


def test_description(tmp_path):
    (tmp_path / DESCRIPTION).write_text(json.dumps(CONTENT))
    description = read_description(tmp_path)
    assert description.modalities == ("CT", "MR") and description.uses_modality
    assert description.left_out == ("clip_image",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modalities": None}, "modalities: found None; allowed: list"),
        ({"left_out": "clip"}, "left_out: found 'clip'; allowed: list"),
        ({"components": {}}, "components: found {}"),
        ({"components": {"clip_text": 1}}, "components: found"),
        ({"graphs": {"encoder": GRAPH, "content": GRAPH}}, "graphs.decoder: found None"),
        ({"graphs": CONTENT["graphs"] | {"decoder": {"inputs": []}}}, "graphs.decoder: found"),
        ({"precision": "f8"}, "precision: found 'f8'; allowed: f32, bf16, int8"),
        ({"crop_size": "64"}, "crop_size: found '64'; allowed: int"),
        ({"takes_clicks": 1}, "takes_clicks: found 1; allowed: bool"),
        ({"graphs": {"encoder": GRAPH, "decoder": GRAPH}}, "graphs.content: found None"),
        ({"graphs": CONTENT["graphs"] | {"correction": []}}, r"graphs.correction: found \[\]"),
        ({"version": 2}, r"format, version: found \('mcp-medsam-openvino', 2\); .* export the checkpoint again"),
    ],
)
def test_malformed_description(tmp_path, changes, message):
    (tmp_path / DESCRIPTION).write_text(json.dumps(CONTENT | changes))
    with pytest.raises(InputError, match=message):
        read_description(tmp_path)
