"""Codes of the DICOM standard for what an object is, found by its name.

The codes are those of the standard's own context groups for segments (PS3.16, CID 7150, 7191, 7192, 7194 and 7197), as
pydicom lists them. Some common words map to one of them or to another SNOMED CT concept of the standard.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cache

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code


@dataclass(frozen=True)
class Coded:
    """What an object is.

    Attributes:
        category: code of CID 7150, e.g. Anatomical Structure.
        type: the type, e.g. Kidney.
        side: Left or Right of CID 244, or None.
    """

    category: Code
    type: Code
    side: Code | None = None


_TISSUE, _ANATOMY, _ABNORMAL = (
    codes.cid7150.Tissue,
    codes.cid7150.AnatomicalStructure,
    codes.cid7150.MorphologicallyAbnormalStructure,
)
#: For an object whose name has no known meaning.
UNKNOWN = Coded(_TISSUE, codes.SCT.Tissue)
#: Context group of property types -> their category. A concept in several groups keeps the first.
_GROUPS = {7194: _ABNORMAL, 7191: _TISSUE, 7192: _ANATOMY, 7197: codes.cid7150.BodySubstance}
_WORDS = {
    _ABNORMAL: {
        "tumor": codes.SCT.Neoplasm,
        "tumour": codes.SCT.Neoplasm,
        "cancer": codes.SCT.Neoplasm,
        "metastasis": codes.SCT.NeoplasmSecondary,
        "polyp": codes.SCT.Lesion,
        "skin lesion": codes.SCT.Lesion,
        "breast mass": codes.SCT.Mass,
        "hematoma": codes.SCT.Hemorrhage,
        "thrombus": codes.SCT.Thrombus,
        "effusion": codes.SCT.Effusion,
        "aneurysm": codes.SCT.Aneurysm,
    },
    _TISSUE: {"vessel": codes.SCT.BloodVessel, "myocardium": codes.SCT.MuscleTissue},
    _ANATOMY: {
        "nucleus": codes.SCT.Nucleus,
        "cell nucleus": codes.SCT.Nucleus,
        "cell": codes.SCT.Cell,
        "optic disc": codes.SCT.OpticNerveHead,
        "optic disk": codes.SCT.OpticNerveHead,
        "retina": codes.SCT.Retina,
        "iris": codes.SCT.Iris,
        "lens": codes.SCT.Lens,
        "placenta": codes.SCT.Placenta,
        "urinary bladder": codes.SCT.Bladder,
        "left ventricular myocardium": codes.SCT.LeftVentricleMyocardium,
    },
    codes.cid7150.PhysicalObject: {
        "catheter": codes.SCT.Catheter,
        "stent": codes.SCT.Stent,
        "needle": codes.SCT.Needle,
        "implant": codes.SCT.Implant,
    },
}
#: In the standard these are a part of the heart, the dorsum and a line in an X-ray; users may mean other things.
_AMBIGUOUS = {"ventricle", "back", "stripe"}
#: Only as the whole name: a muscle mass is not a mass, and a normal liver is not abnormal.
_ALONE = (codes.SCT.Mass, codes.SCT.Normal, codes.DCM.Background)
_DENIED = {"no", "non", "not", "without"}
_SIDES = {"left": codes.SCT.Left, "right": codes.SCT.Right}
#: Plural ending -> singular ending.
_PLURALS = {"nuclei": "nucleus", "teeth": "tooth", "ies": "y", "ses": "sis", "ae": "a", "es": "", "s": ""}


def coded(name: str) -> Coded:
    """Look up the name of an object; ``UNKNOWN`` (Tissue, Tissue) if it has no known meaning.

    Case, a number at the end, a plural, and "left" or "right" at either end do not matter. If the last word names
    something abnormal, it alone counts ("liver tumor").

    Example:
        >>> found = coded("kidney_left")
        >>> found.type.meaning, found.side.meaning
        ('Kidney', 'Left')
    """
    words = re.findall("[a-z0-9]+", name.lower())
    while len(words) > 1 and words[-1].isdigit():
        words.pop()
    found, side = _found(words), None
    for at in (0, -1):
        if found is None and words and words[at] in _SIDES:
            side = _SIDES[words.pop(at)]
            found = _found(words)
    if found is None and not _DENIED.intersection(words):
        found = _found(words[-1:])
        if found is not None and (found.category != _ABNORMAL or found.type in _ALONE):
            found = None
    return UNKNOWN if found is None else Coded(found.category, found.type, side)


def _found(words: list[str]) -> Coded | None:
    key = "".join(words)
    singulars = [key.removesuffix(ending) + single for ending, single in _PLURALS.items() if key.endswith(ending)]
    return next((_index()[word] for word in (key, *singulars) if word in _index()), None)


@cache
def _index() -> dict[str, Coded]:
    """Return keyword and meaning of every concept, in lower case without spaces -> its codes."""
    found = {_key(word): Coded(category, code) for category, words in _WORDS.items() for word, code in words.items()}
    for group, category in _GROUPS.items():
        named: dict[str, set[Code]] = defaultdict(set)
        for keyword, code in getattr(codes, f"cid{group}").concepts.items():
            for text in (keyword, code.meaning):
                named[_key(text)].add(code)
        for text, candidates in named.items():
            if len(candidates) == 1 and text not in _AMBIGUOUS:  # some concepts share a name
                found.setdefault(text, Coded(category, *candidates))
    return found


def _key(text: str) -> str:
    return re.sub("[^a-z0-9]", "", text.lower())
