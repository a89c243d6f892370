"""Image encoders: one file each, and the table of their names.

An encoder is an ``nn.Module``, Bx3xSxS in [0, 1] -> Bx256x64x64 (``custom.networks.embedding``), with ``input_size`` S.
To be trained in part it has what ``TinyViT`` has: ``freeze``, ``frozen``, ``trained`` and ``recompute``.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from custom.errors import InputError
from custom.networks.encoders.tiny_vit import TinyViT

#: Name -> what makes the encoder.
ENCODERS: dict[str, Callable[[], nn.Module]] = {"tiny_vit": TinyViT}


def build_encoder(name: str) -> nn.Module:
    """Return a new image encoder.

    Raises:
        InputError: an unknown name.
    """
    if name not in ENCODERS:
        raise InputError("arguments", "image_encoder", repr(name), ", ".join(ENCODERS))
    return ENCODERS[name]()
