"""Read the ``masks.csv`` of an evaluation with ``--mask_report True``."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from custom.errors import InputError
from custom.handlers.mask_report import COLUMNS, MASKS_FILE
from custom.modalities import MODALITIES, canonical_modality
from custom.report.rows import read_rows

#: What tables call the masks of all modalities together.
ALL = "all"


@dataclass(frozen=True)
class Masks:
    """What was predicted of K masks, and what was true; all arrays of length K.

    Attributes:
        predicted: predicted IoU, cut to [0, 1] as it is shown to users.
        true: true IoU in [0, 1].
        extent: longer side of the object's box as a share of the image's, in (0, 1].
        modality: index of the true modality.
        classified: index of the modality the classifier found most probable, -1 where it has none.
    """

    predicted: np.ndarray
    true: np.ndarray
    extent: np.ndarray
    modality: np.ndarray
    classified: np.ndarray

    def __len__(self) -> int:
        return len(self.true)

    @property
    def dice(self) -> np.ndarray:
        """True Dice in [0, 1]: 2 IoU / (1 + IoU)."""
        return 2 * self.true / (1 + self.true)

    def where(self, chosen: np.ndarray) -> Masks:
        """Return the masks that a boolean array of length K chooses."""
        return Masks(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def by_modality(self) -> dict[str, Masks]:
        """Return the masks of each modality that has any, in the order of ``MODALITIES``."""
        return {MODALITIES[m]: self.where(self.modality == m) for m in np.unique(self.modality)}


def read_masks(folder: Path) -> Masks:
    """Read ``masks.csv``, see ``custom.handlers.MaskReport``.

    Raises:
        InputError: no such file, no mask in it, or a column or a value is missing.
    """
    path = folder / MASKS_FILE
    if not path.is_file():
        raise InputError(folder, MASKS_FILE, "no such file", "the folder of an evaluation with --mask_report True")
    values = [_values(row, f"{path} line {number}") for number, row in read_rows(path, COLUMNS)]
    if not values:
        raise InputError(path, "masks", "none", "one at least")
    predicted, *others = map(np.array, zip(*values, strict=True))
    return Masks(predicted.clip(0, 1), *others)


def _values(row: dict[str, str], source: str) -> tuple[float, float, float, int, int]:
    numbers = []
    for column in ("predicted_iou", "true_iou", "extent"):
        try:
            numbers.append(float(row[column]))
        except (TypeError, ValueError):
            numbers.append(math.nan)
        if not math.isfinite(numbers[-1]):
            raise InputError(source, column, repr(row[column]), "a finite number")
    if not 0 < numbers[-1] <= 1:
        raise InputError(source, "extent", numbers[-1], "a share of the image's longer side, above 0 and up to 1")
    modality = MODALITIES.index(canonical_modality(row["modality"], source))
    found = row["predicted_modality"]
    return *numbers, modality, MODALITIES.index(canonical_modality(found, source)) if found else -1
