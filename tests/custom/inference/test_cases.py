import json
import os
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from custom.errors import InputError
from custom.inference.box_input import BoxInput
from custom.inference.cases import Case, case_fingerprint, list_cases
from custom.inference.click_input import ClickInput

BOX = [[1, 2, 8, 6]]
GIVEN = BoxInput(numbers=((1.0, 2.0, 8.0, 6.0),))


def save_picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 10), np.uint8)).save(path)
    return str(path)


def save_list(path, *entries):
    path.write_text(json.dumps(list(entries)))
    return path


def test_one_image(tmp_path):
    path = save_picture(tmp_path / "a.b.png")
    expected = Case(name="a.b", path=path, boxes=GIVEN, modality="US", names=("tumor",))
    assert list_cases(path, boxes=BOX, modality="US", names="tumor") == ([expected], False)
    assert list_cases(path, boxes="1 2 8 6", modality="US", names=["tumor"]) == ([expected], False)
    (case,) = list_cases(path, boxes=[0.5, 1, 4, 3], world=True)[0]
    assert case.boxes == BoxInput(numbers=((0.5, 1.0, 4.0, 3.0),), world=True)
    (case,) = list_cases(path, boxes=path, margin=2)[0]
    assert case.boxes == BoxInput(path=path, margin=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"boxes": BOX, "names": "a,b"}, "names: found 2 names for 1 boxes"),
        ({"boxes": BOX, "names": ""}, "names: found ''"),
        ({"boxes": BOX, "names": []}, r"names: found \[\]"),
        ({"boxes": BOX, "names": "a,"}, "names: found 'a,'"),
        ({"boxes": BOX, "margin": 2}, "margin: found 2"),
        ({"boxes": [1, 2, 3]}, r"boxes\[0\]: found 3 numbers"),
        ({"margin": 2}, "margin: found 2; allowed: no margin without boxes"),
        ({"world": True}, "world: found True; allowed: no world without boxes"),
        ({"point_labels": "1"}, "point_labels: found '1'; allowed: no labels without points"),
        ({"points": "1 2", "margin": 2}, "margin: found 2; allowed: no margin without boxes"),
        ({"points": "1 2", "slices": 2}, "slice: found 2; allowed: no slice without boxes"),
    ],
)
def test_options_that_do_not_go_together(tmp_path, options, message):
    with pytest.raises(InputError, match=f"arguments: {message}"):
        list_cases(save_picture(tmp_path / "a.png"), **options)


def test_folder_of_images(tmp_path):
    for name in ("b.png", "a.png", "sub/c.png", ".hidden.png"):
        save_picture(tmp_path / name)
    np.savez(tmp_path / "2D_US_1.npz", imgs=np.zeros((8, 10)), boxes=BOX)
    (tmp_path / "notes.txt").touch()
    (tmp_path / "scan.dcm").touch()
    cases, several = list_cases(tmp_path, modality="US")
    assert several and [case.name for case in cases] == ["2D_US_1", "a", "b", "scan"]
    assert {case.modality for case in cases} == {"US"} and {case.boxes for case in cases} == {None}


def test_one_box_for_a_folder_of_images(tmp_path):
    for name in ("b.png", "a.png"):
        save_picture(tmp_path / name)
    cases, several = list_cases(tmp_path, boxes="1 2 8 6", names="tumor")
    assert several and [(case.name, case.boxes, case.names) for case in cases] == [
        ("a", GIVEN, ("tumor",)),
        ("b", GIVEN, ("tumor",)),
    ]


def test_pairs_of_files_are_one_image(tmp_path):
    for name in ("a.hdr", "a.img", "b.IMG", "b.HDR", "c.nii"):
        (tmp_path / name).touch()
    assert [case.path for case in list_cases(tmp_path, boxes=BOX)[0]] == [
        str(tmp_path / n) for n in ("a.hdr", "b.HDR", "c.nii")
    ]


def test_folder_of_a_series(tmp_path, write_series):
    write_series(tmp_path / "ct", np.zeros((3, 8, 10)))
    expected = [Case(name="ct", path=str(tmp_path / "ct"), boxes=GIVEN)], False
    assert list_cases(str(tmp_path / "ct"), boxes=BOX) == expected


def test_json_list(tmp_path):
    save_picture(tmp_path / "in" / "a.png")
    mask = save_picture(tmp_path / "in" / "m.png")
    entries = [
        {"image": "in/a.png", "boxes": BOX, "modality": "oct", "names": ["tumor"]},
        {"image": "in/none.png", "boxes": "1 2 8 6"},
        {"image": "in/v.nii", "boxes": [[1, 2, 8, 6], [3, 0, 9, 7]], "slice": 4, "names": "a,b"},
        {"image": "2D_US_1.npz", "modality": None},
        {"image": "in/a.png", "boxes": "in/m.png"},
    ]
    path = save_list(tmp_path / "list.json", *entries)
    cases, several = list_cases(path, modality="US")
    assert several and cases == [
        Case(name="in_a.png", path=str(tmp_path / "in/a.png"), boxes=GIVEN, modality="OCT", names=("tumor",)),
        Case(name="none", path=str(tmp_path / "in/none.png"), boxes=GIVEN, modality="US"),
        Case(
            name="v",
            path=str(tmp_path / "in/v.nii"),
            boxes=BoxInput(numbers=((1, 2, 8, 6), (3, 0, 9, 7)), slices=(4, 4)),
            modality="US",
            names=("a", "b"),
        ),
        Case(name="2D_US_1", path=str(tmp_path / "2D_US_1.npz"), modality="US"),
        Case(name="in_a.png_2", path=str(tmp_path / "in/a.png"), boxes=BoxInput(path=mask), modality="US"),
    ]
    with pytest.raises(InputError, match="arguments: boxes: found boxes for .*; allowed: no boxes: the list has its"):
        list_cases(path, boxes=BOX)
    with pytest.raises(InputError, match=r"list.json: in/none.png: names: found 2 names for 1 boxes"):
        list_cases(path, names="a,b")


def test_names_do_not_meet(tmp_path):
    images = ["p/a.png", "q/a.png", "q/A.jpg", "c.png", "c.png", "p_a.png.nii", "report_0.png"]
    cases, _ = list_cases(save_list(tmp_path / "list.json", *({"image": image} for image in images)))
    names = [case.name for case in cases]
    assert names == ["p_a.png", "q_a.png", "q_A.jpg", "c.png", "c.png_2", "p_a.png_2", "report_0_2"]


@pytest.mark.parametrize(
    ("content", "field", "found"),
    [
        ("{", "list", "invalid JSON"),
        ("[]", "list", "list []"),
        ('{"image": "a.png"}', "list", "dict"),
        ('["a.png"]', "[0]", "a.png"),
        ('[{"image": "a.png"}, {"boxes": []}]', "[1]", "{'boxes': []}"),
        ('[{"image": 7}]', "[0]", "{'image': 7}"),
        (
            '[{"image": "a.png", "box": []}]',
            "[0]",
            "the key 'box'; allowed: image, boxes, modality, names, slice, points, point_labels, mask; did",
        ),
        ('[{"image": "a.png", "boxes": [1, 2, 3]}]', "[0]: boxes[0]", "3 numbers"),
        ('[{"image": "a.png", "boxes": "m.png"}]', "[0]: boxes", ""),
        ('[{"image": "a.png", "boxes": [1, 2, 8, 6], "names": ["a", "b"]}]', "[0]: names", "2 names for 1 boxes"),
        ('[{"image": "a.png", "boxes": [1, 2, 8, 6], "slice": "a"}]', "[0]: slice", "'a'"),
        ('[{"image": "a.npz", "slice": 1}]', "[0]: slice", "1; allowed: no slice without boxes"),
        ('[{"image": "a.png", "modality": "radar"}]', "[0]: modality", "'radar'"),
    ],
)
def test_malformed_list(tmp_path, content, field, found):
    path = tmp_path / "list.json"
    path.write_text(content)
    with pytest.raises(InputError) as error:
        list_cases(path)
    assert str(error.value).startswith(f"{path}: {field}: found {found}")


def save_csv(path, text, encoding="utf-8"):
    path.write_text(text, encoding=encoding, newline="")
    return path


def test_csv_list(tmp_path):
    rows = """image,x_min,y_min,z_min,x_max,y_max,z_max,slice,modality,name
a.png,1,2,,8,6,,,us,"tumor, left"

"b, 2.nii",1,2,0,8.5,6,3,,,
./a.png,3,0,,9,7,,,US,
c.nii,1,2,,8,6,,4,,
c.nii,1,2,,8,6,,5,CT
"""
    cases, several = list_cases(save_csv(tmp_path / "list.csv", rows), modality="MR")
    place = str(tmp_path) + os.sep
    two = ((1, 2, 8, 6), (3, 0, 9, 7))
    same = ((1, 2, 8, 6), (1, 2, 8, 6))
    assert several and cases == [
        Case(
            name="a", path=f"{place}a.png", boxes=BoxInput(numbers=two), modality="US", names=("tumor, left", "box 2")
        ),
        Case(name="b, 2", path=f"{place}b, 2.nii", boxes=BoxInput(numbers=((1, 2, 0, 8.5, 6, 3),)), modality="MR"),
        Case(name="c", path=f"{place}c.nii", boxes=BoxInput(numbers=same, slices=(4, 5)), modality="CT"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "encoding"),
    [
        ("a.csv", "y_max;x_max;Image;Y_MIN;x_min\r\n6;8;a.png;2;1\r\n", "utf-8-sig"),
        ("a.CSV", "image,x_min,y_min,x_max,y_max,,\na.png, 1, 2, 8, 6,,\n", "utf-8"),
        ("a.tsv", "image\tx_min\ty_min\tx_max\ty_max\na.png\t1\t2\t8\t6", "utf-8"),
    ],
)
def test_csv_of_spreadsheets(tmp_path, name, text, encoding):
    (case,) = list_cases(save_csv(tmp_path / name, text, encoding))[0]
    assert case == Case(name="a", path=str(tmp_path / "a.png"), boxes=GIVEN)


def test_csv_in_mm(tmp_path):
    path = save_csv(tmp_path / "a.csv", "image,x_min,y_min,z_min,x_max,y_max,z_max\na.nii,10,2,5,-8,6,-3\n")
    (case,) = list_cases(path, world=True)[0]
    assert case.boxes == BoxInput(numbers=((10, 2, 5, -8, 6, -3),), world=True)


@pytest.mark.parametrize(
    ("rows", "field", "found"),
    [
        (["a.png,1,2,8,6", "b.png,a,2,8,6"], "row 3: x_min", "'a'; allowed: a number"),
        (["", "a.png,,2,8,6"], "row 3: x_min", "''"),
        (["a.png,1,2,8,nan"], "row 2: boxes[0]", "[1.0, 2.0, 8.0, nan]"),
        (["a.png,9,2,8,6"], "row 2: boxes[0]", "[9.0, 2.0, 8.0, 6.0]; allowed: x_min <= x_max"),
        ([",1,2,8,6"], "row 2: image", "nothing"),
        (["a.png,1,2,8,6,1"], "row 2", "one of z_min and z_max"),
        (["a.png,1,2,8,6,,,1.5"], "row 2: slice", "'1.5'; allowed: a whole number"),
        (["a.png,1,2,8,6,,,-1"], "row 2: slice", "-1"),
        (["a.png,1,2,8,6,0,3,2"], "row 2: slice", "2; allowed: no slice for boxes of 6 numbers"),
        (["a.png,1,2,8,6", "b.png,1,2,8,6", "a.png,1,2,8,6,0,3"], "row 4", "a different kind of box than before"),
        (["a.png,1,2,8,6,,,1", "a.png,1,2,8,6"], "row 3", "a different kind of box than before"),
        (["a.png,1,2,8,6,,,,CT", "a.png,1,2,8,6,,,,", "a.png,1,2,8,6,,,,US"], "row 4: modality", "US; allowed: one"),
        (["a.png,1,2,8,6,,,,radar"], "row 2: modality", "'radar'"),
        (["a.png,1,2,8,6,,,,CT,n,7"], "row 2", "11 cells"),
        ([], "list", "no row"),
    ],
)
def test_malformed_rows(tmp_path, rows, field, found):
    header = "image,x_min,y_min,x_max,y_max,z_min,z_max,slice,modality,name"
    path = save_csv(tmp_path / "boxes.csv", "\n".join([header, *rows]))
    with pytest.raises(InputError) as error:
        list_cases(path)
    assert str(error.value).startswith(f"{path}: {field}: found {found}")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"image,x_min,y_min,xmax,y_max", "the column 'xmax'; allowed: image, x_min, .* did you mean x_max?"),
        (b"image,x_min,y_min,x_max,y_max,image", "the column 'image' twice"),
        (b"image,x_min,y_min,x_max", "the columns image, x_min, y_min, x_max; allowed: image, x_min, y_min, x_max, y_"),
        (b"image,x_min,y_min,x_max,y_max,z_min", ".*z_min and z_max together"),
        (b"a.png,1,2,8,6", "the column 'a.png'"),
        (b"", "the columns ;"),
        (b"\xff\xfe\x00", ".*codec can't decode"),
        (b'image,x_min,y_min,x_max,y_max\n"' + b"a" * 200_000, ".*field larger than field limit"),
    ],
)
def test_malformed_csv(tmp_path, content, found):
    path = tmp_path / "boxes.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"boxes.csv: (list|row 1): found {found}"):
        list_cases(path)


def test_list_for_a_folder(tmp_path):
    """Its images are in the folder or beside the list; the folder's other images are not segmented."""
    for name in ("in/a.png", "in/c.png", "b.png", "a.png"):
        save_picture(tmp_path / name)
    text = "image,x_min,y_min,x_max,y_max\na.png,1,2,8,6\nb.png,1,2,8,6\nnone.png,1,2,8,6\n"
    table = save_csv(tmp_path / "boxes.csv", text)
    cases, several = list_cases(tmp_path / "in", boxes=str(table), modality="US")
    assert several and [(case.path, case.boxes, case.modality) for case in cases] == [
        (str(tmp_path / name), GIVEN, "US") for name in ("in/a.png", "b.png", "in/none.png")
    ]
    entries = save_list(tmp_path / "boxes.json", {"image": "a.png", "boxes": BOX})
    (case,) = list_cases(tmp_path / "in", boxes=entries)[0]
    assert case == Case(name="a", path=str(tmp_path / "in/a.png"), boxes=GIVEN)
    with pytest.raises(InputError, match="boxes: found the list .* for one image; allowed: .* folder of images"):
        list_cases(tmp_path / "b.png", boxes=table)


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match="image: found no such file"):
        list_cases(tmp_path / "none.png")


def test_fingerprint(tmp_path):
    case = Case(name="a", path=save_picture(tmp_path / "a.png"), boxes=GIVEN, modality="US")
    facts = {"options": {"overlap": "logit"}, "model": {"digest": "1"}}
    first = case_fingerprint(case, facts)
    assert len(first) == 16 and case_fingerprint(replace(case, boxes=BoxInput.parse("1 2 8 6")), facts) == first
    changed = [
        case_fingerprint(replace(case, boxes=BoxInput.parse([1, 2, 8, 7])), facts),
        case_fingerprint(replace(case, boxes=BoxInput.parse(BOX, world=True)), facts),
        case_fingerprint(replace(case, boxes=BoxInput.parse(BOX, slices=0)), facts),
        case_fingerprint(replace(case, boxes=None), facts),
        case_fingerprint(replace(case, modality=None), facts),
        case_fingerprint(replace(case, names=("tumor",)), facts),
        case_fingerprint(case, facts | {"model": {"digest": "2"}}),
        case_fingerprint(case, facts | {"options": {"overlap": "last"}}),
    ]
    os.utime(case.path, ns=(1, 1))
    changed.append(case_fingerprint(case, facts))
    assert len({first, *changed}) == 10


def test_fingerprint_follows_the_files_of_the_boxes(tmp_path):
    mask = save_picture(tmp_path / "m.png")
    case = Case(name="a", path=save_picture(tmp_path / "a.png"), boxes=BoxInput.parse(mask))
    prints = [case_fingerprint(case, {}), case_fingerprint(replace(case, boxes=BoxInput.parse(mask, margin=1)), {})]
    os.utime(mask, ns=(1, 1))
    assert len({*prints, case_fingerprint(case, {})}) == 3
    moved = save_picture(tmp_path / "b" / "m.png")
    os.utime(moved, ns=(1, 1))
    assert case_fingerprint(replace(case, boxes=BoxInput.parse(moved)), {}) == case_fingerprint(case, {})


def test_fingerprint_of_a_series(tmp_path, write_series):
    case = Case(name="ct", path=str(write_series(tmp_path / "ct", np.zeros((3, 8, 10)))))
    first = case_fingerprint(case, {})
    next((tmp_path / "ct").iterdir()).unlink()
    assert case_fingerprint(case, {}) != first


@pytest.mark.parametrize("image", ["a\0b.png", "x" * 5000 + ".png", "\ud800.png", ".", ".."])
def test_names_that_can_be_no_files(tmp_path, image):
    """They are cases like others and fail when read; listing must not fail for all."""
    (case,) = list_cases(save_list(tmp_path / "list.json", {"image": image, "boxes": BOX}))[0]
    assert len(case_fingerprint(case, {})) == 16
    assert "/" not in case.name and case.name not in ("", ".", "..")


def test_long_names_leave_room_for_endings(tmp_path):
    paths = [save_picture(tmp_path / f"{'ä' * 120}{n}.png") for n in range(2)]
    names = [case.name for case in list_cases(tmp_path, boxes=BOX)[0]]
    assert len(set(names)) == 2 and all(len(os.fsencode(name)) <= 200 for name in names)
    assert list_cases(paths[0], boxes=BOX)[0][0].name == names[0]


def test_a_folder_without_any_boxes(tmp_path):
    """Refused at once, instead of picture by picture."""
    (tmp_path / "a.png").touch()
    (tmp_path / "b.nii.gz").touch()
    with pytest.raises(InputError, match="boxes: found no boxes for 2 images; allowed: --boxes"):
        list_cases(tmp_path)
    (tmp_path / "c.npz").touch()
    assert len(list_cases(tmp_path)[0]) == 3


def test_clicks_of_one_image_and_of_a_folder(tmp_path):
    path = save_picture(tmp_path / "a.png")
    clicks = ClickInput(points=(((1.0, 2.0),),), labels=((0,),))
    (case,) = list_cases(path, points="1 2", point_labels=0)[0]
    assert case.clicks == clicks and case.boxes is None
    (case,) = list_cases(path, boxes=BOX, points=[1, 2], point_labels="0", mask=path)[0]
    assert case.clicks == replace(clicks, mask=path) and case.boxes == GIVEN and case.prompt_files == (path,)
    (case,) = list_cases(path, points=[1, 2], world=True)[0]
    assert case.clicks.world
    save_picture(tmp_path / "b.png")
    assert [case.clicks.mask for case in list_cases(tmp_path, mask=path)[0]] == [path, path]


def test_clicks_of_a_json_list(tmp_path):
    mask = save_picture(tmp_path / "m.png")
    save_picture(tmp_path / "a.png")
    entries = [
        {"image": "a.png", "points": [[1, 2], [3, 4]], "point_labels": [1, 0]},
        {"image": "a.png", "boxes": BOX, "points": "1 2"},
        {"image": "a.png", "mask": "m.png"},
    ]
    cases, _ = list_cases(save_list(tmp_path / "list.json", *entries))
    assert [case.clicks for case in cases] == [
        ClickInput(points=(((1.0, 2.0), (3.0, 4.0)),), labels=((1, 0),)),
        ClickInput(points=(((1.0, 2.0),),)),
        ClickInput(mask=mask),
    ]
    assert [case.boxes for case in cases] == [None, GIVEN, None]
    for bad, message in (
        ({"points": [[1]]}, r"list.json: .0.: points.0..0.: found"),
        ({"point_labels": [1]}, r"list.json: .0.: point_labels: found"),
        ({"mask": "none.png"}, r"list.json: .0.: mask: found .*none.png: no such file"),
    ):
        with pytest.raises(InputError, match=message):
            list_cases(save_list(tmp_path / "list.json", {"image": "a.png", **bad}))


@pytest.mark.parametrize("given", [{"points": "1 2"}, {"point_labels": "1"}, {"mask": "m.png"}])
def test_a_list_has_its_own_clicks(tmp_path, given):
    save_picture(tmp_path / "a.png")
    table = save_list(tmp_path / "list.json", {"image": "a.png", "boxes": BOX})
    (name,) = given
    with pytest.raises(InputError, match=f"arguments: {name}: found .*; allowed: no {name}: the list has its own"):
        list_cases(table, **given)
    with pytest.raises(InputError, match=f"arguments: {name}: found .*; allowed: no {name}: the list has its own"):
        list_cases(tmp_path, boxes=str(table), **given)


def test_fingerprint_changes_with_clicks(tmp_path):
    path, mask = save_picture(tmp_path / "a.png"), save_picture(tmp_path / "m.png")
    given = [
        {},
        {"points": "1 2"},
        {"points": "1 3"},
        {"points": "1 2", "point_labels": "0"},
        {"points": "1 2; 1 3"},
        {"points": "1 2 | 1 3"},
        {"mask": mask},
        {"points": "1 2", "mask": mask},
    ]
    prints = [case_fingerprint(list_cases(path, boxes=BOX, **more)[0][0], {}) for more in given]
    assert len(set(prints)) == len(given)
    os.utime(mask, ns=(5, 5))
    again = [case_fingerprint(list_cases(path, boxes=BOX, **more)[0][0], {}) for more in given]
    assert [a == b for a, b in zip(prints, again, strict=True)] == [True] * 6 + [False] * 2
