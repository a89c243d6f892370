"""The eleven imaging modalities, in the order of the embedding table of the published checkpoints."""

from __future__ import annotations

from custom.errors import InputError

MODALITIES: tuple[str, ...] = (
    "CT",
    "MR",
    "Endoscopy",
    "X-Ray",
    "PET",
    "Dermoscopy",
    "Mammography",
    "US",
    "OCT",
    "Fundus",
    "Microscopy",
)

#: Index that stands for "the modality is not known".
UNKNOWN_MODALITY = -1

# Spellings met in file names and manifests, reduced to lower-case letters.
_ALIASES = {
    "mri": "MR",
    "xray": "X-Ray",
    "cxr": "X-Ray",
    "ultrasound": "US",
    "mammo": "Mammography",
    "dermatology": "Dermoscopy",
    "fundusphotography": "Fundus",
    "microscope": "Microscopy",
}


def canonical_modality(name: str, source: str = "modality") -> str:
    """Return the project's spelling of a modality.

    Args:
        name: any common spelling, e.g. ``"MRI"``, ``"xray"`` or ``"us"``.
        source: the file or argument the name came from, for the error.

    Raises:
        InputError: the name is none of the eleven modalities.

    Example:
        >>> canonical_modality("XRay")
        'X-Ray'
    """
    letters = "".join(c for c in str(name).lower() if c.isalpha())
    spellings = {m.lower().replace("-", ""): m for m in MODALITIES} | _ALIASES
    if letters not in spellings:
        raise InputError(source, "modality", repr(name), ", ".join(MODALITIES))
    return spellings[letters]


def modality_index(name: str | None, source: str = "modality") -> int:
    """Return a modality's row in the embedding table, or ``UNKNOWN_MODALITY`` for ``None``."""
    return UNKNOWN_MODALITY if name is None else MODALITIES.index(canonical_modality(name, source))


def modality_texts(modalities: tuple[str, ...] = MODALITIES) -> list[str]:
    """Return the CLIP prompts "{Modality} Image" (Section 3.2.1), one for each modality."""
    return [f"{modality} Image" for modality in modalities]
