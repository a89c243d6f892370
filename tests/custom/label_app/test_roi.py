import numpy as np
import pytest

from custom.errors import InputError
from custom.label_app.roi import parse_prompt

VOLUME, PICTURE = (48, 40, 14), (160, 120)


@pytest.mark.parametrize(
    ("request_", "boxes", "k"),
    [
        ({"roi": [8, 20, 6, 18, 3, 7], "slice": 4}, [[8, 6, 20, 18]], 4),
        ({"roi": [20, 8, 18, 6, 7, 3]}, [[8, 6, 20, 18]], 5),  # reversed; the middle slice
        ({"roi": [-9, 20, 6, 99, 3, 7], "slice": 0}, [[0, 6, 20, 39]], 0),  # drawn beyond the image
        ({"roi": [8, 6, 20, 18], "slice": 13}, [[8, 6, 20, 18]], 13),
        ({"roi": [[8, 20, 6, 18, 3, 7], [1, 5, 2, 6, 3, 7]], "slice": 4}, [[8, 6, 20, 18], [1, 2, 5, 6]], 4),
        ({"box": [8, 6, 20, 18], "slice": 2}, [[8, 6, 20, 18]], 2),
        ({"box": [8, 6, 3, 20, 18, 9]}, [[8, 6, 20, 18]], 6),
        ({"boxes": [[8, 6, 20, 18], [1.5, 2, 5, 6]], "slice": 2.0}, [[8, 6, 20, 18], [1.5, 2, 5, 6]], 2),
        ({"foreground": [[20, 6, 5], [8, 18, 5]], "background": []}, [[8, 6, 20, 18]], 5),
        ({"roi": [], "foreground": [[20, 6], [8, 18]], "slice": 5}, [[8, 6, 20, 18]], 5),
        ({"roi": [8, 20, 6, 18, 3, 7], "foreground": [[9, 9, 4]], "slice": 4}, [[8, 6, 20, 18]], 4),
    ],
)
def test_one_slice_of_a_volume(request_, boxes, k):
    prompt = parse_prompt(request_, VOLUME, dimension=2)
    np.testing.assert_array_equal(prompt.boxes, boxes)
    assert prompt.slice == k


@pytest.mark.parametrize(
    "request_",
    [
        {"roi": [20, 8, 18, 6, 3, 7]},
        {"box": [8, 6, 3, 20, 18, 7]},
        {"boxes": [[8, 6, 3, 20, 18, 7]]},
        {"foreground": [[8, 18, 7], [20, 6, 3]]},
    ],
)
def test_volume(request_):
    prompt = parse_prompt(request_, VOLUME, dimension=3)
    np.testing.assert_array_equal(prompt.boxes, [[8, 6, 3, 20, 18, 7]])
    assert prompt.slice is None


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize(
    "request_",
    [
        {"roi": [8, 6, 20, 18]},
        {"roi": [20, 8, 18, 6, 0, 0], "slice": 0},
        {"box": [8, 6, 0, 20, 18, 0]},
        {"foreground": [[8, 18], [20, 6]]},
    ],
)
def test_picture(request_, dimension):
    prompt = parse_prompt(request_, PICTURE, dimension=dimension)
    np.testing.assert_array_equal(prompt.boxes, [[8, 6, 20, 18]])
    assert prompt.slice is None


def test_picture_that_lies_across_the_second_axis():
    prompt = parse_prompt({"roi": [8, 20, 0, 0, 18, 6]}, PICTURE, dimension=2, flat=1)
    np.testing.assert_array_equal(prompt.boxes, [[8, 6, 20, 18]])


@pytest.mark.parametrize(
    ("request_", "dimension", "message"),
    [
        ({}, 2, "roi: found nothing"),
        ({"roi": []}, 2, "roi: found nothing"),
        ({"roi": [1, 2]}, 2, r"roi\[0\]: found \[1, 2\]"),
        ({"roi": "8,20,6,18"}, 2, "roi: found '8,20,6,18'"),
        ({"roi": [8, 20, 6, "a", 3, 7]}, 3, r"roi\[0\]"),
        ({"roi": [8, 20, 6, True, 3, 7]}, 3, r"roi\[0\]"),
        ({"roi": [8, 20, 6, float("nan"), 3, 7]}, 3, "finite numbers"),
        ({"roi": [60, 70, 6, 18, 3, 7]}, 3, "i 0 to 47"),
        ({"box": {"x": 1}}, 2, "box: found"),
        ({"boxes": [8, 6, 20, 18], "slice": 1}, 2, r"\[\[x0,y0,x1,y1\]"),
        ({"boxes": [[8, 6, 20]], "slice": 1}, 2, r"boxes\[0\]"),
        ({"box": [8, 6, 20, 18]}, 3, "the 2D model"),
        ({"box": [8, 6, 20, 18]}, 2, "slice: found no slice"),
        ({"box": [8, 6, 20, 18], "slice": 14}, 2, "0 to 13"),
        ({"box": [8, 6, 20, 18], "slice": 1.5}, 2, "0 to 13"),
        ({"box": [8, 6, 20, 18], "slice": "3"}, 2, "0 to 13"),
        ({"foreground": [[8, 6, 3]]}, 2, "1 clicks"),
        ({"foreground": [[8, 6, 3], [9, 9]]}, 2, "two clicks"),
        ({"foreground": [8, 6]}, 2, r"foreground\[0\]: found 8"),
    ],
)
def test_what_cannot_be_understood_is_reported(request_, dimension, message):
    with pytest.raises(InputError, match=message):
        parse_prompt(request_, VOLUME, dimension=dimension)


def test_a_picture_has_no_other_slice():
    with pytest.raises(InputError, match="slice: found 3"):
        parse_prompt({"box": [8, 6, 20, 18], "slice": 3}, PICTURE, dimension=2)


@pytest.mark.parametrize("value", [10**400, float("inf"), float("nan"), -(10**400), 1e400])
def test_numbers_beyond_all_bounds(value):
    box, clicks = [1, 2, value, 4], [[1, value], [3, 4]]
    for request in ({"box": box}, {"box": [1, 2, 5, 6], "slice": value}, {"foreground": clicks}):
        with pytest.raises(InputError, match="request: "):
            parse_prompt(request, (20, 20, 5), dimension=2)


ROI, BOX = [8, 20, 6, 18, 3, 7], [8, 6, 3, 20, 18, 7]
FRONT, BACK = [[9, 9, 4], [12, 10, 4]], [[18, 7, 4]]


@pytest.mark.parametrize("clicks", ["points", "corners"])
@pytest.mark.parametrize(
    ("request_", "dimension", "k", "points", "labels"),
    [
        ({"roi": ROI, "foreground": FRONT, "background": BACK}, 3, None, [*FRONT, *BACK], [1, 1, 0]),
        ({"box": BOX, "background": BACK}, 3, None, BACK, [0]),
        ({"roi": ROI, "foreground": FRONT, "background": BACK}, 2, 4, [[9, 9], [12, 10], [18, 7]], [1, 1, 0]),
        ({"roi": ROI, "foreground": [[9, 9, 7], [9, 9, 3]], "slice": 3}, 2, 3, [[9, 9]], [1]),  # that of its slice
        ({"roi": ROI, "foreground": [], "background": [[9.4, 9, 6]]}, 2, 6, [[9.4, 9]], [0]),
        ({"box": [8, 6, 20, 18], "foreground": [[9, 9]], "slice": 4}, 2, 4, [[9, 9]], [1]),
        ({"box": [8, 6, 20, 18], "foreground": [[9, 9, 4], [9, 9, 4]]}, 2, 4, [[9, 9]], [1]),  # the same once more
        ({"roi": ROI, "foreground": [[2, 3, 4]]}, 2, 4, [[2, 3]], [1]),  # outside the box
    ],
)
def test_clicks_correct_the_mask_of_a_box(request_, dimension, k, points, labels, clicks):
    prompt = parse_prompt(request_, VOLUME, dimension=dimension, clicks=clicks)
    assert prompt.boxes.tolist() == [BOX if dimension == 3 else [8, 6, 20, 18]] and prompt.count == 1
    assert prompt.slice == k and prompt.points.tolist() == points and prompt.point_labels.tolist() == labels


@pytest.mark.parametrize("dimension", [2, 3])
def test_clicks_alone_on_a_picture(dimension):
    request = {"foreground": [[8, 18], [20, 6]], "background": [[40, 50]]}
    prompt = parse_prompt(request, PICTURE, dimension=dimension, clicks="points")
    assert prompt.boxes is None and prompt.count == 1 and prompt.slice is None
    assert prompt.points.tolist() == [[8, 18], [20, 6], [40, 50]] and prompt.point_labels.tolist() == [1, 1, 0]
    across = parse_prompt({"foreground": [[8, 0, 18]]}, PICTURE, dimension=2, flat=1, clicks="points")
    assert across.points.tolist() == [[8, 18]]


def test_corners_and_then_corrections():
    corners, further = [[20, 6, 7], [8, 18, 3]], [[12, 10, 4]]
    for dimension, boxes in ((3, [BOX]), (2, [[8, 6, 20, 18]])):
        request = {"foreground": corners, "background": []}
        prompt = parse_prompt(request, VOLUME, dimension=dimension, clicks="corners")
        assert prompt.boxes.tolist() == boxes and prompt.points is None and prompt.point_labels is None
        request = {"foreground": corners + further, "background": BACK}
        prompt = parse_prompt(request, VOLUME, dimension=dimension, clicks="corners")
        assert prompt.boxes.tolist() == boxes and prompt.point_labels.tolist() == [1, 0]
        assert prompt.points[:, :2].tolist() == [[12, 10], [18, 7]]


@pytest.mark.parametrize("clicks", ["points", "corners"])
def test_a_box_with_the_clicks_that_made_it(clicks):
    corners = [[20, 6, 4], [8, 18, 4]]
    for dimension in (2, 3):
        prompt = parse_prompt({"roi": ROI, "foreground": corners}, VOLUME, dimension=dimension, clicks=clicks)
        assert prompt.boxes[0, :2].tolist() == [8, 6] and prompt.points is None
    request = {"box": [8, 6, 20, 18], "foreground": [[20, 6], [8, 18], [9, 9]]}
    assert parse_prompt(request, PICTURE, dimension=2, clicks=clicks).points.tolist() == [[9, 9]]


@pytest.mark.parametrize(
    ("request_", "size", "dimension", "message"),
    [
        ({"foreground": FRONT}, VOLUME, 3, "foreground: found clicks without a box, in a volume.*a box or ROI around"),
        ({"foreground": FRONT, "slice": 4}, VOLUME, 2, "a box or ROI around the object first"),
        ({"background": [[8, 6]]}, PICTURE, 2, "foreground: found background clicks alone"),
        ({"roi": ROI, "foreground": [[48, 9, 4]]}, VOLUME, 3, r"foreground\[0\]: found \[48.0, 9.0, 4.0\].*x 0 to 47"),
        ({"roi": ROI, "background": [[9, 9, 4], [9, -1, 4]]}, VOLUME, 2, r"background\[1\].*inside the image"),
        ({"roi": ROI, "background": [[9, 9, 14]], "slice": 4}, VOLUME, 2, r"background\[0\].*z 0 to 13"),
        ({"foreground": [[160, 6]]}, PICTURE, 2, r"foreground\[0\].*x 0 to 159, y 0 to 119"),
        ({"roi": ROI, "foreground": [[9, 9, 8]]}, VOLUME, 3, "slice 8.*a slice of the box, 3 to 7"),
        ({"roi": ROI, "foreground": [[9, 9]]}, VOLUME, 3, r"\[x, y, z\] in a volume"),
        ({"boxes": [BOX, BOX], "foreground": FRONT}, VOLUME, 3, "clicks with 2 boxes"),
        ({"roi": ROI, "foreground": 5}, VOLUME, 3, "foreground: found 5"),
        ({"roi": ROI, "foreground": "9,9,4"}, VOLUME, 3, "foreground: found '9,9,4'"),
        ({"roi": ROI, "background": [[9, 9, True]]}, VOLUME, 3, r"background\[0\]: found"),
        ({"roi": ROI, "background": [[9, 10**400, 4]]}, VOLUME, 3, r"background\[0\].*finite numbers"),
        ({"foreground": [], "background": []}, PICTURE, 2, "roi: found nothing"),
    ],
)
def test_clicks_that_cannot_be_used_are_reported(request_, size, dimension, message):
    with pytest.raises(InputError, match=message) as caught:
        parse_prompt(request_, size, dimension=dimension, clicks="points")
    assert "\n" not in str(caught.value)


def test_weights_without_clicks_ignore_them_beside_a_box():
    for clicks in ({"foreground": [[9, 9, 99]]}, {"background": "x"}, {"foreground": FRONT, "background": BACK}):
        prompt = parse_prompt({"roi": ROI} | clicks, VOLUME, dimension=2)
        assert prompt.slice == 5 and prompt.points is None and prompt.boxes.tolist() == [[8, 6, 20, 18]]
    request = {"foreground": [[8, 18, 7], [20, 6, 3]], "background": BACK}
    assert parse_prompt(request, VOLUME, dimension=3).boxes.tolist() == [BOX]
