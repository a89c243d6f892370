import pytest

from custom.errors import InputError
from custom.modalities import (
    DICOM_MODALITIES,
    MODALITIES,
    UNKNOWN_MODALITY,
    canonical_modality,
    modality_index,
    modality_texts,
)


def test_published_order():
    assert MODALITIES == tuple("CT MR Endoscopy X-Ray PET Dermoscopy Mammography US OCT Fundus Microscopy".split())
    assert [modality_index(name) for name in MODALITIES] == list(range(11))
    assert modality_index(None) == UNKNOWN_MODALITY == -1


@pytest.mark.parametrize("name", MODALITIES)
def test_any_case(name):
    assert {canonical_modality(text) for text in (name, name.lower(), name.upper(), f" {name} ")} == {name}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("MRI", "MR"),
        ("XRay", "X-Ray"),
        ("x_ray", "X-Ray"),
        ("CXR", "X-Ray"),
        ("ultrasound", "US"),
        ("Mammo", "Mammography"),
        ("Microscope", "Microscopy"),
        ("dermatology", "Dermoscopy"),
        ("Fundus Photography", "Fundus"),
        ("fundus image", "Fundus"),
        ("MRT", "MR"),
        ("magnetic resonance imaging", "MR"),
        ("C T scan", "CT"),
        ("Computed Tomography", "CT"),
        ("positron emission tomography", "PET"),
        ("PET scan", "PET"),
        ("optical coherence tomography", "OCT"),
        ("x ray", "X-Ray"),
        ("radiograph", "X-Ray"),
        ("mammogram", "Mammography"),
        ("sonography", "US"),
        ("dermatoscopy", "Dermoscopy"),
        ("skin", "Dermoscopy"),
        ("histology", "Microscopy"),
        ("pathology", "Microscopy"),
        ("colonoscopy", "Endoscopy"),
        ("gastroscopy", "Endoscopy"),
    ],
)
def test_other_spellings(name, expected):
    assert canonical_modality(name) == expected


@pytest.mark.parametrize(("code", "expected"), DICOM_MODALITIES.items())
def test_dicom_codes(code, expected):
    assert canonical_modality(code) == canonical_modality(code.lower()) == expected


@pytest.mark.parametrize("name", ["", "scan", "SPECT", "unknown", "NM", "OT", "SC", "XC", "PET/CT", "retina", 3])
def test_unknown(name):
    with pytest.raises(InputError) as error:
        modality_index(name, "a.npz")
    assert str(error.value) == f"a.npz: modality: found {name!r}; allowed: {', '.join(MODALITIES)}"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("Ultrasuond", "US"), ("Fundos", "Fundus"), ("Microscpy", "Microscopy"), ("mamography", "Mammography")],
)
def test_mistyped(name, nearest):
    with pytest.raises(InputError, match=f"found '{name}'; allowed: CT, MR, .*, Microscopy \\(nearest: {nearest}\\)$"):
        canonical_modality(name)


def test_texts():
    assert modality_texts()[:2] == ["CT Image", "MR Image"] and len(modality_texts()) == 11
