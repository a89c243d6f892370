"""Load weights: the project's own checkpoints, published MCP-MedSAM checkpoints, and LiteMedSAM's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import torch

from custom.errors import InputError
from custom.networks.mcp_medsam import CORRECTION, REFINEMENT, MCPMedSAM, is_new_branch

#: The recognised layouts, as named in the load report.
OWN, PUBLISHED, LITE_LAYOUT = "MCP-MedSAM for MONAI", "MCP-MedSAM (published)", "LiteMedSAM"

# Published name -> own name, applied in this order. Both published layouts share the names of LiteMedSAM's tensors.
_RENAMES: tuple[tuple[str, str], ...] = (
    (r"^image_encoder\.patch_embed\.seq\.", "image_encoder.patch_embed."),
    (r"^image_encoder\.layers\.", "image_encoder.stages."),
    (r"^(image_encoder\..*)\.c\.", r"\1.conv."),
    (r"\.downsample\.", ".merge."),
    (r"^mask_decoder\.transformer\.layers\.", "mask_decoder.transformer.blocks."),
    (r"\.mlp\.lin1\.", ".mlp.0."),
    (r"\.mlp\.lin2\.", ".mlp.3."),
    (r"\.norm_final_attn\.", ".norm_final."),
    (r"^mask_decoder\.(iou_token|mask_tokens)\.weight$", r"mask_decoder.\1"),
    (r"^mask_decoder\.output_upscaling\.", "mask_decoder.upscale."),
    (r"^mask_decoder\.output_hypernetworks_mlps\.0\.layers\.", "mask_decoder.mask_mlp."),
    (r"^mask_decoder\.iou_prediction_head\.layers\.", "mask_decoder.iou_head."),
    (r"^(mask_decoder\.(?:mask_mlp|iou_head))\.2\.", r"\1.6."),  # torchvision's MLP also counts activation and dropout
    (r"^(mask_decoder\.(?:mask_mlp|iou_head))\.1\.", r"\1.3."),
    (r"^mask_decoder\.conv1\.", "mask_decoder.join."),
    (r"^mask_decoder\.convs\.", "mask_decoder.content_block."),
    (r"^mask_decoder\.c_conv\.", "mask_decoder.join_block."),
    (r"^mask_decoder\.m_conv\.", "mask_decoder.modality_block."),
    (r"\.batch_norm([12])\.", r".norm\1."),
    (r"^mask_decoder\.w_lin\.", "mask_decoder.film_weight."),
    (r"^mask_decoder\.b_lin\.", "mask_decoder.film_bias."),
    (r"^mask_decoder\.category_prediction_head\.", "mask_decoder.modality_head."),
    (r"^prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix$", "prompt_encoder.position.frequencies"),
    (r"^prompt_encoder\.no_mask_embed\.weight$", "prompt_encoder.no_mask_embed"),
    (r"^prompt_encoder\.not_a_point_embed\.weight$", "prompt_encoder.no_point_embed"),
    (r"^prompt_encoder\.mask_downscaling\.", "prompt_encoder.mask_encoder."),
    (r"^prompt_encoder\.crop_nets\.conv\.", "prompt_encoder.content_cnn.stem."),
    (r"^prompt_encoder\.crop_nets\.conv1\.", "prompt_encoder.content_cnn.blocks.0."),
    (r"^prompt_encoder\.crop_nets\.conv2\.", "prompt_encoder.content_cnn.blocks.1."),
    (r"^prompt_encoder\.crop_nets\.conv3\.", "prompt_encoder.content_cnn.blocks.2."),
    (r"^prompt_encoder\.crop_nets\.conv4\.", "prompt_encoder.content_cnn.head."),
    (r"^prompt_encoder\.clip_img_mlp\.", "prompt_encoder.image_mlp."),
    (r"^prompt_encoder\.clip_text_mlp\.", "prompt_encoder.text_mlp."),
    (r"^prompt_encoder\.mlps\.", "prompt_encoder.modality_mlp."),
    (r"^prompt_encoder\.categories\.", "prompt_encoder.modality_embed."),
)
# Own name -> the published names of its rows.
_ROWS = {
    f"prompt_encoder.{own}": tuple(f"prompt_encoder.point_embeddings.{i}.weight" for i in rows)
    for own, rows in (("point_embed", (0, 1)), ("corner_embed", (2, 3)))
}
# What checkpoints from before version 0.7 do not have.
_CLICK_TRANSFORMER = ("mask_decoder.click_transformer.",)
_CLICKS = tuple(f"prompt_encoder.{name}" for name in ("point_embed", "no_point_embed", "mask_encoder.", "mask_scale"))

# What other projects' checkpoints need not hold: CLIP's text table and the switches.
_SWITCHES = "prompt_encoder._extra_state"
_NOT_IN_FOREIGN = {"prompt_encoder.text_table", _SWITCHES}
# Without the scale, which only the project's own checkpoints have, masks as prompts have no effect.
_MASK_SCALE, _MASK_ENCODER = "prompt_encoder.mask_scale", "prompt_encoder.mask_encoder."
_ALLOWED_CONTENT = "a dict of tensors, or one under the key 'model'"


class LoadReport(NamedTuple):
    """The result of a load: the layout, and the tensors matched, left out of the file, and missing in it."""

    layout: str
    matched: tuple[str, ...]
    left_out: tuple[str, ...]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.layout} checkpoint: {len(self.matched)} tensors matched, "
            f"{len(self.left_out)} left out, {len(self.missing)} missing"
        )


def read_state_dict(path: str | PathLike[str]) -> dict[str, torch.Tensor]:
    """Read the tensors of a checkpoint file: a state dict, or a dict that holds one under ``model``.

    Raises:
        InputError: no such file, not a checkpoint, or no tensors in it.
    """
    if not Path(path).is_file():
        raise InputError(path, "checkpoint", "no file", "a checkpoint file (.pt, .pth)")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types of error for a damaged or foreign file
        raise InputError(path, "checkpoint", _first_line(error), "a file of tensors, readable without pickle") from None
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict):
        raise InputError(path, "checkpoint", type(content).__name__, _ALLOWED_CONTENT)
    tensors = {k: value for k, value in content.items() if isinstance(k, str) and isinstance(value, torch.Tensor)}
    if not tensors:
        raise InputError(path, "checkpoint", "a dict without named tensors", _ALLOWED_CONTENT)
    return {name.removeprefix("module."): value for name, value in tensors.items()}  # DDP adds the prefix


def recognise_layout(state_dict: dict[str, torch.Tensor]) -> str | None:
    """Return the layout of tensors, by names that only one layout has; None for another network's."""
    if "image_encoder.stages.0.merge.conv1.conv.weight" in state_dict:
        return OWN
    if "image_encoder.layers.0.downsample.conv1.c.weight" in state_dict:
        return PUBLISHED if "prompt_encoder.categories.weight" in state_dict else LITE_LAYOUT
    return None


def convert_published(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the tensors of a published MCP-MedSAM or LiteMedSAM checkpoint to the project's layout."""
    converted = {}
    for name, value in state_dict.items():
        if any(name in rows for rows in _ROWS.values()):
            continue
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        converted[name] = value
    for own, rows in _ROWS.items():
        if all(name in state_dict for name in rows):
            converted[own] = torch.cat([state_dict[name] for name in rows])
    return converted


def read_in_own_layout(
    path: str | PathLike[str], *, layouts: Sequence[str] = (OWN, PUBLISHED, LITE_LAYOUT)
) -> tuple[dict[str, torch.Tensor], str]:
    """Read a checkpoint that has one of some layouts, with the project's names of tensors.

    Returns:
        The tensors, and the layout they had.

    Raises:
        InputError: a file that ``read_state_dict`` refuses, or a checkpoint of another layout.
    """
    tensors = read_state_dict(path)
    layout = recognise_layout(tensors)
    if layout not in layouts:
        found = layout or f"a checkpoint of another network (first tensor {next(iter(tensors))!r})"
        raise InputError(path, "checkpoint", found, ", ".join(layouts))
    return (tensors if layout == OWN else convert_published(tensors)), layout


def load_checkpoint(network: MCPMedSAM, path: str | PathLike[str], *, allow_partial: bool = False) -> LoadReport:
    """Load a checkpoint of any of the three layouts into a network.

    The project's own checkpoints also set which prompt components are on. After LiteMedSAM's the new branches are
    identity or zero, so that the network starts close to LiteMedSAM's accuracy.

    Args:
        network: the network to fill.
        path: the checkpoint file.
        allow_partial: accept a checkpoint that lacks tensors of the network, which then keep their values.

    Returns:
        The layout and the names of the tensors matched, left out and missing.

    Raises:
        InputError: another network's checkpoint, a tensor of other shape, or tensors missing without ``allow_partial``.
    """
    tensors, layout = read_in_own_layout(path)
    own_names = network.state_dict()
    expected = set(own_names)
    if layout != OWN:
        expected -= _NOT_IN_FOREIGN
    if _MASK_SCALE not in tensors:
        expected = {name for name in expected if not name.startswith((_MASK_SCALE, _MASK_ENCODER))}
    # Published checkpoints have none or few of these, nor have the project's own from before version 0.4 and 0.7.
    parts = ((REFINEMENT,), (CORRECTION,), _CLICKS, _CLICK_TRANSFORMER)
    added = [part for part in parts if not any(name.startswith(part) for name in tensors)]
    expected = {name for name in expected if not any(name.startswith(part) for part in added)}
    if layout == LITE_LAYOUT:
        expected = {name for name in expected if not is_new_branch(name)}

    matched = {name: value for name, value in tensors.items() if name in own_names}
    for name, value in matched.items():
        if value.shape != own_names[name].shape and name != _SWITCHES:  # earlier checkpoints have fewer switches
            raise InputError(path, name, f"shape {tuple(value.shape)}", f"{tuple(own_names[name].shape)}")
    missing = tuple(sorted(expected - set(matched)))
    if missing and not allow_partial:
        found = f"{len(missing)} tensors missing, the first {missing[0]!r}"
        raise InputError(path, "checkpoint", found, "all tensors of the network, or allow_partial=True")
    network.load_state_dict(matched, strict=False)
    if _MASK_SCALE not in tensors:
        torch.nn.init.zeros_(network.prompt_encoder.mask_scale)
    for name in (REFINEMENT, CORRECTION):
        if (name,) in added:
            part = getattr(network, name)
            part.on = False
            part.start_as_identity()
    if _CLICKS in added:
        network.prompt_encoder.start_without_clicks()
    if _CLICK_TRANSFORMER in added:
        network.mask_decoder.start_clicks()
    if layout == LITE_LAYOUT:
        network.start_as_lite_medsam()
    return LoadReport(layout, tuple(matched), tuple(name for name in tensors if name not in own_names), missing)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120] if str(error).strip() else ''}"
