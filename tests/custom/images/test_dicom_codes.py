import pytest
from pydicom.sr.codedict import codes

from custom.images.dicom_codes import UNKNOWN, coded

ANATOMY, ABNORMAL = "Anatomical Structure", "Morphologically Abnormal Structure"


@pytest.mark.parametrize(
    ("name", "category", "value", "meaning", "side"),
    [
        ("liver", ANATOMY, "10200004", "Liver", None),
        ("Lungs", ANATOMY, "39607008", "Lung", None),
        ("left kidney", ANATOMY, "64033007", "Kidney", "Left"),
        ("Kidney_Right", ANATOMY, "64033007", "Kidney", "Right"),
        ("left ventricle", ANATOMY, "87878005", "Left ventricle", None),
        ("Vertebrae", ANATOMY, "51282000", "Vertebra", None),
        ("T10 vertebra", ANATOMY, "7610001", "T10 vertebra", None),
        ("teeth", ANATOMY, "38199008", "Tooth", None),
        ("optic disc", ANATOMY, "81016008", "Optic nerve head", None),
        ("nuclei", ANATOMY, "84640000", "Nucleus", None),
        ("tumor", ABNORMAL, "108369006", "Neoplasm", None),
        ("lesion 3", ABNORMAL, "52988006", "Lesion", None),
        ("left lung nodules", ABNORMAL, "27925004", "Nodule", "Left"),
        ("Metastases", ABNORMAL, "14799000", "Neoplasm, Secondary", None),
        ("breast mass", ABNORMAL, "4147007", "Mass", None),
        ("vessels", "Tissue", "59820001", "Blood Vessel", None),
        ("bone", "Tissue", "3138006", "Bone", None),
        ("urine", "Body Substance", "78014005", "Urine", None),
        ("stent", "Physical object", "65818007", "Stent", None),
    ],
)
def test_known(name, category, value, meaning, side):
    found = coded(name)
    assert (found.category.meaning, found.type.value, found.type.meaning) == (category, value, meaning)
    assert (found.side and found.side.meaning) == side


@pytest.mark.parametrize("name", ["", "box 1", "left", "ventricle", "no tumor", "muscle mass", "optic cup", "肝", "12"])
def test_unknown(name):
    assert coded(name) == UNKNOWN


def test_codes_are_those_of_the_standard():
    names = ["tumor", "polyp", "effusion", "aneurysm", "thrombus", "retina", "iris", "lens", "placenta", "myocardium"]
    known = set(codes.SCT.concepts.values())
    for found in map(coded, [*names, "cell", "needle", "hematoma"]):
        assert found.type in known and found.category in codes.cid7150.concepts.values()
