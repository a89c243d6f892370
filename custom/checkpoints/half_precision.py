"""Store weights in half the space for shipping: ``python -m custom.checkpoints.half_precision WEIGHTS --out FILE``."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import torch

from custom.checkpoints.files import write_checkpoint
from custom.checkpoints.loading import OWN, read_in_own_layout
from custom.command_line import run
from custom.errors import InputError

#: Smaller tensors (norms, biases, tokens, the positional frequencies) stay as they are: they take little space.
SMALLEST = 10_000


def halve(
    tensors: Mapping[str, torch.Tensor], *, source: str | PathLike[str] = "checkpoint"
) -> dict[str, torch.Tensor]:
    """Round the large float32 tensors of a state dict to float16; loading them turns them into float32 again.

    Args:
        tensors: the state dict.
        source: where the tensors came from, for the error.

    Raises:
        InputError: a large tensor holds a number that float16 cannot.

    Example:
        >>> {name: value.dtype for name, value in halve({"w": torch.ones(100, 100), "b": torch.ones(9)}).items()}
        {'w': torch.float16, 'b': torch.float32}
    """
    halved = {}
    for name, value in tensors.items():
        large = value.dtype == torch.float32 and value.numel() >= SMALLEST
        halved[name] = value.half() if large else value
        if not halved[name].isfinite().all():
            raise InputError(source, name, "a number beyond float16", f"up to {torch.finfo(torch.float16).max:.0f}")
    return halved


def store(checkpoint: str, *, out: str) -> None:
    """Write only the weights of one of the project's checkpoints, in half precision.

    Args:
        checkpoint: file of a training, ``model.pt`` or ``last.pt``.
        out: file to write.

    Raises:
        InputError: not one of the project's checkpoints, or a number that float16 cannot hold.
    """
    tensors, _ = read_in_own_layout(checkpoint, layouts=(OWN,))
    path = Path(str(out))
    write_checkpoint(path, halve(tensors, source=checkpoint))
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def main() -> None:
    """Run the command line."""
    run(store, name="python -m custom.checkpoints.half_precision")


if __name__ == "__main__":
    main()
