"""Clicks on errors against brute force: parts by flood fill, distances to every pixel outside."""

import numpy as np
import pytest
from scipy import ndimage

from custom.clicks import Click, box_around, centre, error_click, found_box, view_boxes
from custom.prompts import NEGATIVE, POSITIVE


def parts_of(region):
    """The 4-connected parts of a region as sets of (y, x), each by a flood fill."""
    left, found = {(y, x) for y, x in np.argwhere(region).tolist()}, []
    while left:
        part, edge = set(), [min(left)]
        while edge:
            y, x = edge.pop()
            if (y, x) in left:
                left.remove((y, x))
                part.add((y, x))
                edge += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
        found.append(part)
    return found


def innermost(part):
    """The pixels (x, y) of a part that are farthest from any pixel that is not of it, in or beside the image."""
    ys, xs = zip(*part, strict=True)
    around = [(y, x) for y in range(min(ys) - 1, max(ys) + 2) for x in range(min(xs) - 1, max(xs) + 2)]
    outside = np.array([place for place in around if place not in part])
    distance = {(x, y): ((outside - [y, x]) ** 2).sum(axis=1).min() for y, x in part}
    return {place for place, value in distance.items() if value == max(distance.values())}


def random_pairs(count):
    """Masks and truths of a few parts each, many of them at the border."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        noise = ndimage.gaussian_filter(rng.normal(size=(2, 17, 14)), (0, 1.5, 1.5))
        yield noise[0] > 0.02, noise[1] > 0.02


def test_the_centre_of_the_largest_error():
    labels = []
    for mask, truth in random_pairs(40):
        parts = [(p, POSITIVE) for p in parts_of(truth & ~mask)] + [(p, NEGATIVE) for p in parts_of(mask & ~truth)]
        most = max(len(part) for part, _ in parts)
        click = error_click(mask, truth)
        allowed = [(innermost(part), label) for part, label in parts if len(part) == most]
        assert any((click.x, click.y) in places and click.label == label for places, label in allowed)
        labels.append(click.label)
    assert {POSITIVE, NEGATIVE} == set(labels)


def test_no_error_no_click():
    truth = np.zeros((5, 6), bool)
    assert error_click(truth, truth) is None
    truth[1:3, 2:4] = True
    assert error_click(truth, truth) is None and error_click(truth, truth, np.random.default_rng(0)) is None


def test_missing_and_too_much():
    truth, mask = np.zeros((2, 20, 20), bool)
    truth[2:9, 4:11] = True
    assert error_click(mask, truth) == Click(7, 5, POSITIVE)
    mask[:, 12:] = True
    assert error_click(mask, truth) == Click(15, 3, NEGATIVE)  # larger; the first of the pixels 4 from both sides


def test_the_border_of_the_image_is_the_border_of_a_region():
    region = np.zeros((21, 21), bool)
    region[:5] = True
    x, y = centre(region)
    assert y == 2 and 2 <= x <= 18
    assert centre(np.ones((7, 9), bool)) == (3, 3)
    one = np.zeros((4, 4), bool)
    one[3, 0] = True
    assert centre(one) == (0, 3)


def test_any_pixel_of_the_largest_error():
    truth, mask = np.zeros((2, 12, 12), bool)
    truth[1:4, 1:5], truth[8, 8] = True, True
    rng = np.random.default_rng(1)
    drawn = {error_click(mask, truth, rng) for _ in range(200)}
    assert drawn == {Click(x, y, POSITIVE) for x in range(1, 5) for y in range(1, 4)}
    assert error_click(mask, truth, np.random.default_rng(2)) == error_click(mask, truth, np.random.default_rng(2))


def test_the_box_of_a_mask_or_the_whole_image():
    mask = np.zeros((10, 20), bool)
    assert found_box(mask).tolist() == [0, 0, 19, 9]
    mask[2:4, 5:15] = True
    assert found_box(mask).tolist() == [5, 2, 14, 3]


def test_the_box_around_a_box_and_clicks():
    box = np.array([5.0, 2.0, 14.0, 3.0])
    assert box_around(box, np.zeros((0, 2))).tolist() == box.tolist()
    assert box_around(box, np.array([[7, 9], [1, 3]])).tolist() == [1, 2, 14, 9]


@pytest.mark.parametrize(
    ("box", "size", "margin", "expected"),
    [
        ([100, 50, 199, 149], (512, 512), 0.2, [80, 30, 219, 169]),  # 20 of 100 pixels
        ([100, 50, 199, 99], (512, 512), 0.2, [80, 30, 219, 119]),  # of the longer side, on every side
        ([100, 50, 109, 54], (512, 300), 0.2, [88, 38, 121, 66]),  # at least 6 pixels of the frame, here 12
        ([10, 20, 239, 189], (200, 250), 0.5, [0, 0, 249, 199]),  # inside the image
        ([30.5, 30.5, 129.5, 129.5], (256, 256), 0.1, [20, 20, 140, 140]),  # whole pixels, outwards
    ],
)
def test_what_a_view_shows(box, size, margin, expected):
    assert view_boxes(np.array([box], float), size, margin).tolist() == [expected]


def test_a_margin_for_each_view():
    boxes = np.array([[100, 100, 199, 199], [100, 100, 199, 199]], float)
    found = view_boxes(boxes, (400, 400), np.array([[0.1], [0.5]]))
    assert found.tolist() == [[90, 90, 209, 209], [50, 50, 249, 249]] and found.dtype == np.float64
