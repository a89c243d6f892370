"""The eleven imaging modalities, in the order of the embedding table of the published checkpoints."""

from __future__ import annotations

import re
from difflib import get_close_matches

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

#: DICOM's Modality -> ours, if the code is specific enough: not OT (other), SC and XC (photos), NM (SPECT, bone scans).
DICOM_MODALITIES: dict[str, str] = {
    "CT": "CT",
    "MR": "MR",
    "PT": "PET",
    "US": "US",
    "IVUS": "US",
    "CR": "X-Ray",
    "DX": "X-Ray",
    "RG": "X-Ray",
    "IO": "X-Ray",
    "PX": "X-Ray",
    "RF": "X-Ray",
    "XA": "X-Ray",
    "MG": "Mammography",
    "OPT": "OCT",
    "OCT": "OCT",
    "IVOCT": "OCT",
    "ES": "Endoscopy",
    "OP": "Fundus",
    "DMS": "Dermoscopy",
    "SM": "Microscopy",
    "GM": "Microscopy",
}

# Common names; only their letters are compared.
_EVERYDAY = {
    "CT": "CAT, computed tomography, computer tomography",
    "MR": "MRI, MRT, magnetic resonance, magnetic resonance tomography",
    "Endoscopy": "endoscope, endoscopic, colonoscopy, gastroscopy, laparoscopy, bronchoscopy, cystoscopy",
    "X-Ray": "CXR, chest x-ray, radiograph, radiography, roentgen, fluoroscopy",
    "PET": "positron emission tomography",
    "Dermoscopy": "dermatoscopy, dermoscopic, dermatology, skin",
    "Mammography": "mammo, mammogram",
    "US": "ultrasound, ultrasonography, sonography, sonogram, echocardiography",
    "OCT": "optical coherence tomography",
    "Fundus": "fundus photo, fundus photograph, fundus photography, retinography",
    "Microscopy": "microscope, microscopic, histology, histopathology, pathology, cytology",
}
_GENERIC = re.compile(r"(?<=..)(scans?|images?|imaging)$")  # "CT scan", "fundus image"


def canonical_modality(name: str, source: str = "modality") -> str:
    """Return the project's spelling of a modality.

    Args:
        name: a DICOM code or a common name, e.g. ``"DX"``, ``"MRI"``, ``"x ray"`` or ``"CT scan"``.
        source: the file or argument the name came from, for the error.

    Raises:
        InputError: the name is none of the eleven modalities; the error suggests the nearest one.

    Example:
        >>> canonical_modality("XRay"), canonical_modality("histology")
        ('X-Ray', 'Microscopy')
    """
    letters = _letters(name)
    short = _GENERIC.sub("", letters)
    if short not in _SPELLINGS:
        near = get_close_matches(letters, _SPELLINGS, 1, cutoff=0.81)  # OT is not OCT, SPECT is not PET
        hint = f" (nearest: {_SPELLINGS[near[0]]})" if near else ""
        raise InputError(source, "modality", repr(name), ", ".join(MODALITIES) + hint)
    return _SPELLINGS[short]


def _letters(name: object) -> str:
    return "".join(c for c in str(name).lower() if c.isalpha())


_SPELLINGS = (
    {_letters(word): name for name, words in _EVERYDAY.items() for word in words.split(",")}
    | {_letters(code): name for code, name in DICOM_MODALITIES.items()}
    | {_letters(name): name for name in MODALITIES}
)


def modality_index(name: str | None, source: str = "modality") -> int:
    """Return a modality's row in the embedding table, or ``UNKNOWN_MODALITY`` for ``None``."""
    return UNKNOWN_MODALITY if name is None else MODALITIES.index(canonical_modality(name, source))


def modality_texts(modalities: tuple[str, ...] = MODALITIES) -> list[str]:
    """Return the CLIP prompts "{Modality} Image" (Section 3.2.1), one for each modality."""
    return [f"{modality} Image" for modality in modalities]
