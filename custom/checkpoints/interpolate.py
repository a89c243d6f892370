"""Move trained weights part of the way back to the weights they started from.

python -m custom.checkpoints.interpolate WEIGHTS --towards lite_medsam --share 0.1 --out FILE

Weights between a network and its fine-tuned version keep more of its ability on other images, at little or no
cost on those it was tuned for (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from custom.checkpoints.files import write_checkpoint
from custom.checkpoints.loading import OWN, read_in_own_layout
from custom.command_line import run
from custom.errors import InputError
from custom.lite_medsam import checkpoint_path


def interpolate(
    tensors: Mapping[str, torch.Tensor], others: Mapping[str, torch.Tensor], share: float
) -> dict[str, torch.Tensor]:
    """Return ``(1 - share) * tensors + share * others`` for tensors that both have; the rest is unchanged.

    Args:
        tensors: a state dict.
        others: another one; its tensors of other shapes or names are ignored.
        share: from 0 to 1.

    Example:
        >>> interpolate({"w": torch.tensor([0.0, 4.0]), "new": torch.ones(1)}, {"w": torch.tensor([4.0, 0.0])}, 0.25)
        {'w': tensor([1., 3.]), 'new': tensor([1.])}
    """
    mixed = dict(tensors)
    for name, value in tensors.items():
        other = others.get(name)
        if value.is_floating_point() and other is not None and other.shape == value.shape:
            mixed[name] = torch.lerp(value.float(), other.float(), share)
    return mixed


def store(checkpoint: str, *, towards: str, share: float, out: str) -> None:
    """Write weights that lie a given share of the way from one checkpoint to another.

    Args:
        checkpoint: one of the project's checkpoints; its switches, and what the other does not have, are kept.
        towards: a checkpoint of any layout that can be loaded, or "lite_medsam".
        share: from 0 (no change) to 1.
        out: file to write, in float32.

    Raises:
        InputError: unsuitable checkpoints, or a share out of range.
    """
    if not (isinstance(share, float | int) and 0 <= share <= 1):
        raise InputError("arguments", "share", share, "a number from 0 to 1")
    tensors, _ = read_in_own_layout(checkpoint, layouts=(OWN,))
    other = checkpoint_path(towards)
    others, _ = read_in_own_layout(other)
    write_checkpoint(Path(str(out)), interpolate(tensors, others, share))
    print(f"{out}: {1 - share:g} of {checkpoint}, {share:g} of {other}")


def main() -> None:
    """Run the command line."""
    run(store, name="python -m custom.checkpoints.interpolate")


if __name__ == "__main__":
    main()
