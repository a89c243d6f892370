import doctest
from pathlib import Path

from custom.inference import summary
from custom.inference.summary import summary_table


def test_example_of_the_documentation():
    assert doctest.testmod(summary).failed == 0


def test_a_volume_that_is_contradicted():
    box = {"name": "box 1", "iou": 0.412, "voxels": 9, "volume_mm3": 81234.5, "longest_diameter_mm": 51.25}
    box |= {"predicted_modality": "PET", "probability": 0.84}
    table = summary_table({"boxes": [box], "modality": "CT", "files": ["a_mask.nii.gz"]}, Path("out/a.json"))
    assert table.splitlines() == [
        "object   IoU     mL  longest mm  modality",
        "box 1   0.41  81.23       51.25  CT (looks like PET, 84%)",
        "out: a_mask.nii.gz, a.json",
    ]
