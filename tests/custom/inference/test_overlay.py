import numpy as np
import pytest

from custom.inference.overlay import draw_montage, draw_overlay, draw_result

GREEN, BLUE = np.array([64, 255, 64]), np.array([80, 140, 255])


@pytest.mark.parametrize("colour", [False, True])
def test_tint_outline_and_box(colour):
    image = np.full((60, 80, 3) if colour else (60, 80), 100, np.uint8)
    labels = np.zeros((60, 80), np.uint8)
    labels[20:30, 20:40] = 1
    labels[40:50, 60:70] = 2
    before = image.copy()
    found = draw_overlay(image, labels, np.array([[15, 15, 45, 35], [55, 35, 75, 55.4]]))
    assert found.shape == (60, 80, 3) and found.dtype == np.uint8
    np.testing.assert_array_equal(image, before)
    first, second = found[20, 20], found[40, 60]  # on the outlines
    assert len({tuple(first), tuple(second), (100, 100, 100)}) == 3
    np.testing.assert_array_equal(found[25, 30], np.uint8(0.7 * 100 + 0.3 * first))
    np.testing.assert_array_equal(found[45, 65], np.uint8(0.7 * 100 + 0.3 * second))
    # the box is drawn around its pixels, which are unchanged
    np.testing.assert_array_equal(found[14, 14:47], np.tile(first, (33, 1)))
    np.testing.assert_array_equal(found[14:37, 46], np.tile(first, (23, 1)))
    untouched = np.ones((60, 80), bool)
    untouched[14:37, 14:47] = untouched[34:57, 54:77] = False
    assert (found[untouched] == 100).all() and (found[15, 15] == 100).all()


def test_box_as_large_as_the_picture_and_more_boxes_than_colours():
    boxes = np.tile([0, 0, 19, 9], (9, 1))
    found = draw_overlay(np.zeros((10, 20), np.uint8), np.full((10, 20), 9, np.uint16), boxes)
    assert found.shape == (10, 20, 3) and found.any(axis=2).all()


def test_lines_of_a_large_picture_are_wider():
    found = draw_overlay(np.zeros((100, 1200), np.uint8), np.zeros((100, 1200), np.uint8), np.array([[50, 30, 90, 60]]))
    assert found[45].any(axis=1).sum() == 2 * 3


@pytest.mark.parametrize("values", [None, [3, 7]])
def test_many_boxes_as_if_drawn_alone(values):
    rng = np.random.default_rng(0)
    image, labels = rng.integers(0, 256, (40, 50), np.uint8), rng.integers(0, 9, (40, 50)).astype(np.uint16)
    boxes = np.array([[5, 5, 20, 20], [30, 10, 45, 35]])
    numbers = values or [1, 2]
    expected = np.repeat(image[..., None], 3, axis=2)
    for k, box in zip(numbers, boxes, strict=True):
        expected = draw_overlay(expected, np.where(labels == k, labels, 0), box[None], [k])
    np.testing.assert_array_equal(draw_overlay(image, labels, boxes, values), expected)


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize(
    ("depth", "boxes", "shown"), [(30, [[2, 2, 3, 60, 30, 5]], [3, 4, 5]), (30, [[2, 2, 0, 60, 30, 29]], 12)]
)
def test_montage(colour, depth, boxes, shown):
    volume = np.full((depth, 40, 80, 3) if colour else (depth, 40, 80), 90, np.uint8)
    labels = np.zeros((depth, 40, 80), np.uint8)
    labels[:, 10:20, 10:20] = 1
    asked = []

    class Captions(list):
        def __getitem__(self, z):
            asked.append(z)
            return f"z {z}"

    found = draw_montage(volume, labels, np.array(boxes, float), Captions())
    count = len(asked)
    assert asked == shown if isinstance(shown, list) else (count, asked[0], asked[-1]) == (shown, 0, depth - 1)
    columns = min(count, 4)
    height, width = 144, 288
    assert found.shape == (-(-count // columns) * (height + 18), columns * (width + 2), 3)
    tile = found[18 : 18 + height, 1 : 1 + width]  # 3.6 times as large as the slice
    assert (tile[0] == 90).all()
    assert (tile[60, 50] == np.uint8(0.7 * 90 + 0.3 * GREEN)).all()


def test_montage_draws_only_the_boxes_of_a_slice():
    volume, labels = np.zeros((5, 20, 20), np.uint8), np.zeros((5, 20, 20), np.uint8)
    boxes = np.array([[2, 2, 0, 8, 8, 1], [10, 10, 1, 16, 16, 2.0]])
    found = draw_montage(volume, labels, boxes, ["" for _ in range(5)])
    tiles = [found[18:, n * 290 + 1 : n * 290 + 289] for n in range(3)]
    shown = [[bool((tile == colour).all(axis=2).any()) for colour in (GREEN, BLUE)] for tile in tiles]
    assert shown == [[True, False], [True, True], [False, True]]


def has_colour(picture, colour):
    return bool((picture == colour).all(axis=2).any())


def text_pixels(image, boxes, *, factor=1, **texts):
    """Return where a result differs from the same one without texts: HxW bool."""
    large = image.repeat(factor, axis=0).repeat(factor, axis=1)
    labels = np.zeros(image.shape[:2], np.uint8)
    ends = np.array(boxes, float) * factor + [0, 0, factor - 1, factor - 1]
    plain = draw_overlay(large, np.zeros(large.shape[:2], np.uint8), ends)
    return (draw_result(image, labels, np.array(boxes, float), **texts) != plain).any(axis=2)


@pytest.mark.parametrize(
    ("shape", "factor"), [((64, 64), 8), ((511, 3), 2), ((512, 40), 1), ((40, 513), 1), ((100, 300), 2), ((1, 1), 512)]
)
def test_a_small_result_is_enlarged_by_a_whole_factor(shape, factor):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    found = draw_result(image, np.zeros(shape, np.uint8), np.zeros((0, 4)))
    np.testing.assert_array_equal(found, image.repeat(factor, axis=0).repeat(factor, axis=1))


def test_masks_and_boxes_of_an_enlarged_result():
    labels = np.zeros((64, 64), np.uint8)
    labels[20:30, 20:40] = 1
    found = draw_result(np.full((64, 64), 90, np.uint8), labels, np.array([[15, 40, 45, 50.2]]))
    assert found.shape == (512, 512, 3)
    np.testing.assert_array_equal(found[160, 160:320], np.tile(GREEN, (160, 1)))  # the outline, one pixel wide
    assert (found[161:239, 161:319] == np.uint8(0.7 * 90 + 0.3 * GREEN)).all() and (found[159, 160:320] == 90).all()
    np.testing.assert_array_equal(found[319:409, 119], np.tile(GREEN, (90, 1)))  # around pixels 40 to 50
    np.testing.assert_array_equal(found[408, 119:369], np.tile(GREEN, (250, 1)))
    assert (found[320:408, 200] == 90).all()


@pytest.mark.parametrize("value", [0, 255])
def test_text_has_the_colour_of_its_object_and_a_dark_edge(value):
    image = np.full((600, 600), value, np.uint8)
    boxes = np.array([[50, 100, 200, 200], [300, 100, 400, 200.0]])
    found = draw_result(image, np.zeros((600, 600), np.uint8), boxes, [0.93, 0.51])
    for colour, columns in ((GREEN, slice(40, 250)), (BLUE, slice(290, 500))):
        above = found[:98, columns]
        assert has_colour(above, colour) and has_colour(above, np.zeros(3))


@pytest.mark.parametrize(
    "box",
    [
        [200, 200, 300, 300],
        [0, 0, 99, 99],
        [500, 0, 599, 99],
        [0, 500, 99, 599],
        [500, 500, 599, 599],
        [0, 0, 599, 599],
    ],
)
@pytest.mark.parametrize("names", [None, ["left ventricle"]])
def test_text_lies_whole_in_the_picture_and_beside_its_box(box, names):
    whole = text_pixels(np.full((800, 800), 90, np.uint8), [[300, 300, 400, 400]], ious=[0.93], names=names)
    found = text_pixels(np.full((600, 600), 90, np.uint8), [box], ious=[0.93], names=names)
    height, width = ((places := np.argwhere(seen)).max(axis=0) - places.min(axis=0) for seen in (found, whole))
    assert (np.abs(height - width * 600 / 800) <= 5).all()  # nothing is cut off
    rows, columns = np.argwhere(found).T
    assert rows.min() >= box[1] - 40 and rows.max() <= box[3] + 40
    assert columns.min() >= box[0] - 150 and columns.max() <= box[2] + 150


def test_what_the_text_says():
    image, box = np.full((600, 600), 90, np.uint8), [[300, 300, 400, 400]]
    same = [
        ({}, {"names": ["1"]}),
        ({"ious": [0.934]}, {"ious": [0.93]}),
        ({"ious": [0.934]}, {"ious": [0.93], "names": ["1"]}),
        ({"ious": [0.876], "names": ["liver"]}, {"names": ["liver 0.88"]}),
        ({"names": [" left\nkidney"]}, {"names": ["left kidney"]}),
    ]
    for first, second in same:
        np.testing.assert_array_equal(text_pixels(image, box, **first), text_pixels(image, box, **second))
    number, both = text_pixels(image, box), text_pixels(image, box, ious=[0.934])
    end = np.argwhere(number)[:, 1].max()
    np.testing.assert_array_equal(both[:, :end], number[:, :end])
    assert both[:, end + 5 :].any()


def test_a_long_name_is_shortened_and_its_number_kept():
    image, box = np.full((600, 200), 90, np.uint8), [[50, 300, 150, 400]]
    found = text_pixels(image, box, ious=[0.93], names=["a name that is far too long for the picture " * 3])
    columns = np.argwhere(found)[:, 1]
    assert columns.min() >= 0 and 150 < np.ptp(columns) < 200
    tail = text_pixels(image, box, names=[" 0.93"])
    width = np.ptp(np.argwhere(tail)[:, 1])
    assert found[:, columns.max() - width : columns.max()].sum() > 0.7 * tail.sum()


def test_texts_do_not_cover_each_other():
    image, box = np.full((600, 600), 90, np.uint8), [200, 200, 300, 300]
    alone = text_pixels(image, [box], names=["1  0.70"])
    counts = [text_pixels(image, [box] * n, names=["1  0.70"] * n).sum() / alone.sum() for n in (2, 3, 4)]
    np.testing.assert_allclose(counts, [2, 3, 4], atol=0.1)
    crowd = text_pixels(image, [box] * 50, names=["1  0.70"] * 50).sum() / alone.sum()
    assert crowd == pytest.approx(text_pixels(image, [box] * 20, names=["1  0.70"] * 20).sum() / alone.sum())


def test_montage_with_texts():
    volume, labels = np.full((5, 60, 60), 90, np.uint8), np.zeros((5, 60, 60), np.uint8)
    boxes = np.array([[10, 15, 0, 20, 25, 1], [35, 35, 1, 50, 50, 2.0]])
    plain = draw_montage(volume, labels, boxes, [""] * 5, names=["", ""])
    found = draw_montage(volume, labels, boxes, [""] * 5, [0.93, 0.51], ["liver", "spleen"])
    np.testing.assert_array_equal(
        found, draw_montage(volume, labels, boxes, [""] * 5, names=["liver 0.93", "spleen 0.51"])
    )
    assert found.shape == plain.shape
    changed = (found != plain).any(axis=2)
    counts = [changed[:, n * 290 : n * 290 + 290].sum() for n in range(3)]
    assert all(counts) and counts[1] == counts[0] + counts[2]


def test_clicks_are_dots():
    image, labels = np.full((520, 600), 100, np.uint8), np.zeros((520, 600), np.uint8)
    boxes = np.array([[50, 50, 200, 200], [300, 300, 400, 400]])
    clicks = [(np.array([[100.0, 120], [250, 260]]), np.array([1, 0])), (np.zeros((0, 2)), np.zeros(0, int))]
    found = draw_result(image, labels, boxes, clicks=clicks)
    assert found[120, 100].tolist() == [0, 220, 0] and found[260, 250].tolist() == [230, 0, 0]
    plain = draw_result(image, labels, boxes)
    rows, columns = np.nonzero((found != plain).any(axis=2))
    assert (
        len(rows) and (np.minimum(np.hypot(columns - 100, rows - 120), np.hypot(columns - 250, rows - 260)) < 8).all()
    )


def test_clicks_on_an_enlarged_picture():
    image, clicks = np.full((20, 30), 100, np.uint8), [(np.array([[7.0, 5]]), np.array([1]))]
    found = draw_result(image, np.zeros((20, 30), np.uint8), np.array([[2, 2, 20, 15]]), clicks=clicks)
    factor = found.shape[0] // 20
    assert found[int(5.5 * factor), int(7.5 * factor)].tolist() == [0, 220, 0]


@pytest.mark.parametrize("masked", [True, False])
def test_objects_without_a_box(masked):
    """No box is drawn; the text is beside the mask, or beside the clicks."""
    image, labels = np.full((520, 600), 100, np.uint8), np.zeros((520, 600), np.uint8)
    labels[200:300, 250:350] = masked
    clicks = [(np.array([[300.0, 250]]), np.array([1]))]
    found = draw_result(image, labels, np.full((1, 4), np.nan), [0.9], ["disc"], clicks)
    changed = np.argwhere((found != 100).any(axis=2))
    assert (np.abs(changed - [250, 300]) < 110).all()
    text = (found[150:200] != 100).any() if masked else (found[200:246] != 100).any()
    assert text


def test_clicks_on_the_slices_of_a_montage():
    volume, labels = np.full((6, 40, 60), 100, np.uint8), np.zeros((6, 40, 60), np.uint8)
    boxes, captions = np.array([[5, 5, 1, 50, 35, 3]], float), [f"z {z}" for z in range(6)]
    clicks = [(np.array([[30.0, 20, 2]]), np.array([0]))]
    plain = draw_montage(volume, labels, boxes, captions)
    found = draw_montage(volume, labels, boxes, captions, clicks=clicks)
    width = plain.shape[1] // 3
    columns = np.unique(np.nonzero((plain != found).any(axis=2))[1] // width)
    assert columns.tolist() == [1]  # the second of slices 1, 2, 3
