"""Add rows to a trained checkpoint for modalities that were added to ``MODALITIES`` after its training.

python -m custom.checkpoints.modality_rows models/model.pt --out models/grown.pt --clip auto
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

import torch

from custom.atomic_write import write_whole
from custom.checkpoints.loading import LITE_LAYOUT, OWN, convert_published, read_state_dict, recognise_layout
from custom.command_line import run
from custom.errors import InputError
from custom.modalities import MODALITIES, modality_texts
from custom.networks.clip import FrozenCLIP, load_clip
from custom.networks.prompt_switches import PromptComponents

TEXT_TABLE = "prompt_encoder.text_table"
# The tensors with one row per modality.
_ROWS = (
    "prompt_encoder.modality_embed.weight",
    "mask_decoder.modality_head.fc2.weight",
    "mask_decoder.modality_head.fc2.bias",
    TEXT_TABLE,
)
_SAME_TEXT = 1e-3


def append_modalities(
    tensors: Mapping[str, torch.Tensor],
    *,
    modalities: Sequence[str] = MODALITIES,
    clip: FrozenCLIP | None = None,
    source: str | PathLike[str] = "checkpoint",
) -> dict[str, torch.Tensor]:
    """Append the rows of new modalities; the outputs for the old ones stay the same until the next training step.

    A new row is the mean of the old ones. So a new modality starts like the unknown one (no modality given), and its
    logit, the mean of the others, is never the largest. With a CLIP the new rows of the text table are its text
    features, as for the old ones; the output for an unknown modality, a mean over the table, then shifts.

    Args:
        tensors: state dict of an ``MCPMedSAM``, the project's or a published one, of the first M of ``modalities``.
        modalities: all names, the new ones after those the network was trained with.
        clip: the CLIP the text table was made with; by default no text feature is computed.
        source: where the tensors came from, for the error.

    Returns:
        State dict in the project's layout, for ``build_mcp_medsam(num_modalities=len(modalities))``.

    Raises:
        InputError: not a network with modalities, no new modality, or a CLIP that is not that of the text table.
    """
    layout = recognise_layout(dict(tensors))
    if layout in (None, LITE_LAYOUT):
        found = layout or "another network's"
        raise InputError(source, "checkpoint", found, "MCP-MedSAM; LiteMedSAM has no modalities and needs no new ones")
    grown = dict(tensors) if layout == OWN else _complete(convert_published(dict(tensors)))
    old = len(grown[_ROWS[0]])
    if len(modalities) <= old:
        allowed = f"more than the checkpoint's {old}; append the new name to MODALITIES in custom/modalities.py"
        raise InputError(source, "modalities", len(modalities), allowed)
    for name in _ROWS:
        mean = grown[name].mean(dim=0, keepdim=True)
        grown[name] = torch.cat([grown[name], *[mean] * (len(modalities) - old)])
    if clip is not None and grown[TEXT_TABLE].any():  # an empty one is filled at the start of a training
        grown[TEXT_TABLE][old:] = _text_rows(grown[TEXT_TABLE][:old], modalities, clip, source)
    return grown


def _complete(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Add what the published layout does not have: an empty text table, and the switches, all on."""
    rows, width = len(tensors[_ROWS[0]]), tensors["prompt_encoder.image_mlp.fc1.weight"].shape[1]
    switches = PromptComponents().to_tensor()
    return tensors | {TEXT_TABLE: torch.zeros(rows, width), "prompt_encoder._extra_state": switches}


def _text_rows(
    table: torch.Tensor, modalities: Sequence[str], clip: FrozenCLIP, source: str | PathLike[str]
) -> torch.Tensor:
    """Return the text features of the new names, after a check that the table holds those of its own names."""
    features = clip.encode_text(modality_texts(tuple(modalities))).cpu()
    known = features[: len(table)]
    if known.shape != table.shape or not torch.allclose(known, table, atol=_SAME_TEXT):
        found = f"other features than those stored for {', '.join(modalities[: len(table)])}"
        raise InputError(source, "clip", found, "the CLIP of the checkpoint's training, or none")
    return features[len(table) :]


def grow_checkpoint(checkpoint: str, *, out: str, clip: str = "none") -> None:
    """Write a checkpoint with a row for every name in ``custom.modalities.MODALITIES``.

    Args:
        checkpoint: the project's or a published MCP-MedSAM checkpoint, trained before the name was appended.
        out: file to write; continue training from it with ``--checkpoint``.
        clip: the CLIP of that training (auto, a local folder or a hub name), or none.

    Raises:
        InputError: an argument or a file cannot be used.
    """
    towers = load_clip(clip)
    grown = append_modalities(read_state_dict(checkpoint), modalities=MODALITIES, clip=towers, source=checkpoint)
    path = Path(str(out))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda file: torch.save({"model": grown}, file))
    print(f"{path}: rows for {', '.join(MODALITIES)}")


def main() -> None:
    """Run the command line."""
    run(grow_checkpoint, name="python -m custom.checkpoints.modality_rows")


if __name__ == "__main__":
    main()
