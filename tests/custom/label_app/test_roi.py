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
        ({"foreground": [8, 6]}, 2, "two clicks"),
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
