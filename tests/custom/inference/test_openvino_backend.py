"""Checks of an exported folder before its graphs are read."""

import pytest

from custom.errors import InputError
from custom.export.folder import Description, write_folder
from custom.inference.openvino_backend import OpenVINOBackend


@pytest.mark.parametrize(
    ("exported", "wanted", "allowed"),
    [("f32", "int8", "f32, bf16"), ("bf16", "int8", "f32, bf16"), ("int8", "f32", "int8"), ("int8", "x", "int8")],
)
def test_precision_that_the_graphs_do_not_have(exported, wanted, allowed, tmp_path):
    description = Description(
        checkpoint="model.pt",
        digest="0" * 16,
        precision=exported,
        components=dict.fromkeys(("clip_text", "modality_embedding", "clip_image", "content_cnn"), False),
        modalities=("US",),
        crop_size=64,
        clip_width=512,
        takes_clicks=False,
        click_tokens=False,
        graphs=dict.fromkeys(("encoder", "decoder"), {"inputs": {}, "outputs": {}}),
        left_out=(),
        made_with={},
    )
    write_folder(tmp_path / "exported", description, lambda folder: None)
    with pytest.raises(InputError, match=f"precision: found '{wanted}'; allowed: {allowed}$"):
        OpenVINOBackend(tmp_path / "exported", precision=wanted)
