import pytest

from custom.errors import InputError
from custom.modalities import MODALITIES, UNKNOWN_MODALITY, canonical_modality, modality_index, modality_texts


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
    ],
)
def test_other_spellings(name, expected):
    assert canonical_modality(name) == expected


@pytest.mark.parametrize("name", ["", "SPECT", "C T scan", "unknown", 3])
def test_unknown(name):
    with pytest.raises(InputError) as error:
        modality_index(name, "a.npz")
    assert str(error.value) == f"a.npz: modality: found {name!r}; allowed: {', '.join(MODALITIES)}"


def test_texts():
    assert modality_texts()[:2] == ["CT Image", "MR Image"] and len(modality_texts()) == 11
