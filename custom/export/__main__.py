"""Export a checkpoint for OpenVINO: ``python -m custom.export --checkpoint FILE --out DIR``."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import openvino

from custom.checkpoints import load_checkpoint, start_network
from custom.checkpoints.loading import LITE_LAYOUT
from custom.command_line import run
from custom.errors import InputError
from custom.export.conversion import graph_names, to_openvino, trace, write_onnx
from custom.export.folder import PRECISIONS, QUANTISED, STAGES, Description, check_out, write_folder
from custom.lite_medsam import checkpoint_path
from custom.modalities import MODALITIES
from custom.networks import MCPMedSAM, build_mcp_medsam


def export(
    checkpoint: str,
    out: str,
    *,
    precision: str = "f32",
    calibration: str | None = None,
    onnx: bool = False,
    clip: str = "none",
) -> None:
    """Write the network's graphs (.xml with .bin) and model.json, whole or not at all.

    "encoder" takes images in the frame, "content" the crops of N objects, "decoder" an embedding and the prompts of N
    objects, "correction" the decoder's masks and clicks; the names and shapes are in model.json. CLIP's text side is a
    table in the decoder, CLIP's image features are an input.

    Args:
        checkpoint: weights; "lite_medsam" for LiteMedSAM's.
        out: folder; an earlier export in it is replaced.
        precision: f32; bf16, the same graphs, run in bfloat16; int8, the wide convolutions of content CNN
            and decoder in 8-bit integers and the rest in bfloat16.
        calibration: for int8, a prepared data set (``python -m data_prep``); boxes of its training part provide
            typical values.
        onnx: True also writes the graphs as .onnx (opset 20, always float32).
        clip: the CLIP the weights were trained with, for weights without a text table, or to use CLIP's
            image features: none, auto, a hub name or a local folder.

    Raises:
        InputError: an argument or a file cannot be used.
    """
    if precision not in PRECISIONS:
        raise InputError("arguments", "precision", repr(precision), ", ".join(PRECISIONS))
    if (precision == QUANTISED) != (calibration is not None):
        allowed = "a prepared data set with --precision int8, no data set with another precision"
        raise InputError("arguments", "calibration", repr(calibration), allowed)
    check_out(str(out))
    path = checkpoint_path(str(checkpoint))
    network, left_out = load(path, str(clip))
    _show("weights read")
    if calibration is not None:
        from custom.export.quantisation import calibration_values, quantise  # NNCF takes seconds to start

        values = calibration_values(str(calibration), network.crop_size)
    graphs, models = {}, {}
    for name in graph_names(network):
        graphs[name] = trace(network, name)
        _show(f"{name} traced")
    for name, graph in graphs.items():
        models[name] = to_openvino(graph)
        _show(f"{name} converted")
    clip_width = network.prompt_encoder.text_table.shape[1]
    if calibration is not None:
        models |= quantise(models, values, clip_width)
    description = Description(
        checkpoint=path.name,
        digest=hashlib.sha256(path.read_bytes()).hexdigest()[:16],
        precision=precision,
        components=asdict(network.components),
        modalities=MODALITIES,
        crop_size=network.crop_size,
        clip_width=clip_width,
        takes_clicks=network.takes_clicks,
        click_tokens=network.prompt_encoder.click_tokens,
        graphs={name: {"inputs": graph.inputs, "outputs": graph.outputs} for name, graph in graphs.items()},
        left_out=left_out,
        made_with={name: version(name) for name in ("openvino", "torch")},
    )

    def write(folder: Path) -> None:
        for name, model in models.items():
            try:
                openvino.save_model(model, folder / f"{name}.xml", compress_to_fp16=False)
            except RuntimeError as error:  # its text is only "iostream error"
                raise InputError(out, "out", error, "a folder that can be written, with free space") from error
            if onnx:
                write_onnx(graphs[name], folder / f"{name}.onnx")

    write_folder(str(out), description, write)
    print(out)


def load(path: Path, clip: str = "none") -> tuple[MCPMedSAM, tuple[str, ...]]:
    """Return the network with a checkpoint's weights, and the prompt components that are off because there is no CLIP.

    LiteMedSAM's weights have no prompt components.

    Raises:
        InputError: not a checkpoint of this network.
    """
    network = build_mcp_medsam()
    report = load_checkpoint(network, path)
    trained = asdict(network.components)
    start_network(network, path, clip)
    if report.layout == LITE_LAYOUT:
        return network, ()
    return network, tuple(name for name, on in asdict(network.components).items() if trained[name] and not on)


def _show(stage: str) -> None:
    if stage in STAGES:
        print(stage, file=sys.stderr, flush=True)


def main() -> None:
    """Run the command line."""
    run(export, name="python -m custom.export")


if __name__ == "__main__":
    main()
