"""Phantoms: computed pictures and volumes of the eleven modalities with exact masks, for demos and tests."""

from __future__ import annotations

import numpy as np

from custom.modalities import MODALITIES
from data_prep.phantoms.pictures import PICTURES
from data_prep.phantoms.shapes import Phantom
from data_prep.phantoms.volumes import VOLUMES

_SEED = 20250611
_SHAPES = ((256, 256), (192, 256))  # pictures alternate, so that some are not square

__all__ = ["Phantom", "make_phantom"]


def make_phantom(modality: str, number: int) -> Phantom:
    """Make phantom ``number`` of a modality; the same arguments give the same bytes.

    CT, MR and PET are volumes (about 12 x 128 x 128, in HU, arbitrary units and SUV); the others are pictures.

    Args:
        modality: one of ``custom.modalities.MODALITIES``.
        number: 0 or more.
    """
    rng = np.random.default_rng([_SEED, MODALITIES.index(modality), number])
    if modality in VOLUMES:
        return VOLUMES[modality](rng)
    return PICTURES[modality](rng, _SHAPES[number % len(_SHAPES)])
