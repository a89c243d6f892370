import json
import os
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from custom.errors import InputError
from custom.inference.cases import Case, fingerprint, list_cases

BOX = [[1, 2, 8, 6]]


def save_picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 10), np.uint8)).save(path)
    return str(path)


def save_list(path, *entries):
    path.write_text(json.dumps(list(entries)))
    return path


def test_one_image(tmp_path):
    path = save_picture(tmp_path / "a.b.png")
    assert list_cases(path, boxes=BOX, modality="US") == (
        [Case(name="a.b", path=path, boxes=BOX, modality="US")],
        False,
    )


def test_folder_of_images(tmp_path):
    for name in ("b.png", "a.png", "sub/c.png", ".hidden.png"):
        save_picture(tmp_path / name)
    np.savez(tmp_path / "2D_US_1.npz", imgs=np.zeros((8, 10)), boxes=BOX)
    (tmp_path / "notes.txt").touch()
    (tmp_path / "scan.dcm").touch()
    cases, several = list_cases(tmp_path, modality="US")
    assert several and [case.name for case in cases] == ["2D_US_1", "a", "b", "scan"]
    assert {case.modality for case in cases} == {"US"} and {case.boxes for case in cases} == {None}
    with pytest.raises(InputError, match="arguments: boxes: found boxes for .*; allowed: boxes for one image"):
        list_cases(tmp_path, boxes=BOX)


def test_folder_of_a_series(tmp_path, write_series):
    write_series(tmp_path / "ct", np.zeros((3, 8, 10)))
    expected = [Case(name="ct", path=str(tmp_path / "ct"), boxes=BOX)], False
    assert list_cases(str(tmp_path / "ct"), boxes=BOX) == expected


def test_list(tmp_path):
    save_picture(tmp_path / "in" / "a.png")
    entries = [
        {"image": "in/a.png", "boxes": BOX, "modality": "OCT"},
        {"image": "in/none.png", "boxes": BOX},
        {"image": "2D_US_1.npz", "modality": None},
    ]
    cases, several = list_cases(save_list(tmp_path / "list.json", *entries), modality="US")
    assert several and cases == [
        Case(name="a", path=str(tmp_path / "in/a.png"), boxes=BOX, modality="OCT"),
        Case(name="none", path=str(tmp_path / "in/none.png"), boxes=BOX, modality="US"),
        Case(name="2D_US_1", path=str(tmp_path / "2D_US_1.npz"), modality="US"),
    ]


def test_names_do_not_meet(tmp_path):
    images = ["p/a.png", "q/a.png", "q/A.jpg", "c.png", "c.png", "p_a.png.nii", "report_0.png"]
    cases, _ = list_cases(save_list(tmp_path / "list.json", *({"image": image} for image in images)))
    names = [case.name for case in cases]
    assert names == ["p_a.png", "q_a.png", "q_A.jpg", "c.png", "c.png_2", "p_a.png_2", "report_0_2"]


@pytest.mark.parametrize(
    ("content", "field", "found"),
    [
        ("{", "list", "no JSON"),
        ("[]", "list", "list []"),
        ('{"image": "a.png"}', "list", "dict"),
        ('["a.png"]', "[0]", "a.png"),
        ('[{"image": "a.png"}, {"boxes": []}]', "[1]", "{'boxes': []}"),
        ('[{"image": 7}]', "[0]", "{'image': 7}"),
        ('[{"image": "a.png", "box": []}]', "[0]", "the key 'box'"),
    ],
)
def test_malformed_list(tmp_path, content, field, found):
    path = tmp_path / "list.json"
    path.write_text(content)
    with pytest.raises(InputError) as error:
        list_cases(path)
    assert str(error.value).startswith(f"{path}: {field}: found {found}")


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match="image: found no such file"):
        list_cases(tmp_path / "none.png")


def test_fingerprint(tmp_path):
    case = Case(name="a", path=save_picture(tmp_path / "a.png"), boxes=BOX, modality="US")
    told = {"options": {"overlap": "logit"}, "model": {"digest": "1"}}
    first = fingerprint(case, told)
    assert len(first) == 16 and fingerprint(replace(case, boxes=[tuple(BOX[0])]), told) == first
    changed = [
        fingerprint(replace(case, boxes=[[1, 2, 8, 7]]), told),
        fingerprint(replace(case, modality=None), told),
        fingerprint(case, told | {"model": {"digest": "2"}}),
        fingerprint(case, told | {"options": {"overlap": "last"}}),
    ]
    os.utime(case.path, ns=(1, 1))
    changed.append(fingerprint(case, told))
    assert len({first, *changed}) == 6


def test_fingerprint_of_a_series(tmp_path, write_series):
    case = Case(name="ct", path=str(write_series(tmp_path / "ct", np.zeros((3, 8, 10)))))
    first = fingerprint(case, {})
    next((tmp_path / "ct").iterdir()).unlink()
    assert fingerprint(case, {}) != first


@pytest.mark.parametrize("image", ["a\0b.png", "x" * 5000 + ".png", "\ud800.png", ".", ".."])
def test_names_that_can_be_no_files(tmp_path, image):
    """They are a case like others, which fails when it is read; listing must not fail for all."""
    (case,) = list_cases(save_list(tmp_path / "list.json", {"image": image, "boxes": BOX}))[0]
    assert len(fingerprint(case, {})) == 16
    assert "/" not in case.name and case.name not in ("", ".", "..")


def test_long_names_leave_room_for_endings(tmp_path):
    paths = [save_picture(tmp_path / f"{'ä' * 120}{n}.png") for n in range(2)]
    names = [case.name for case in list_cases(tmp_path)[0]]
    assert len(set(names)) == 2 and all(len(os.fsencode(name)) <= 200 for name in names)
    assert list_cases(paths[0], boxes=BOX)[0][0].name == names[0]
