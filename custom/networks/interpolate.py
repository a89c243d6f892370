"""Go a little way back from trained weights to those they started from.

python -m custom.networks.interpolate WEIGHTS --towards lite_medsam --share 0.1 --out FILE

Weights between a network and its fine-tuned self keep more of what the first could do on other images, at little or no
cost on those it was tuned for (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from custom.command_line import run
from custom.errors import InputError
from custom.handlers.checkpoint_files import write_checkpoint
from custom.lite_medsam import checkpoint_path
from custom.networks.checkpoint import OWN, read_in_own_layout


def interpolate(
    tensors: Mapping[str, torch.Tensor], others: Mapping[str, torch.Tensor], share: float
) -> dict[str, torch.Tensor]:
    """Return ``(1 - share) * tensors + share * others`` for the numbers that both have; the rest stays as it is.

    Args:
        tensors: a state dict.
        others: another one; tensors of other shapes and those only it has are left out.
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
    """Write weights that lie a share of the way from a checkpoint to another one.

    Args:
        checkpoint: one of the project's checkpoints; its switches and what only it has are kept.
        towards: a checkpoint of any layout that can be loaded, or "lite_medsam".
        share: from 0, nothing changes, to 1.
        out: file to write, in float32.

    Raises:
        InputError: not such checkpoints, or a share out of range.
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
    run(store, name="python -m custom.networks.interpolate")


if __name__ == "__main__":
    main()
