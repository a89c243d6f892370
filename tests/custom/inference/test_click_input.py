import numpy as np
import pytest
from PIL import Image as Picture

from custom.errors import InputError
from custom.images.geometry import Geometry
from custom.images.image import Image
from custom.inference.click_input import ClickInput

ONE = (((12.0, 40.0), (15.0, 52.0)),)
TWO = (*ONE, ((80.0, 33.0),))


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ("12 40; 15 52", ONE),
        ("12,40;15,52;", ONE),
        ("[[12, 40], [15, 52]]", ONE),
        ([[12, 40], [15, 52]], ONE),
        ("12 40; 15 52 | 80 33", TWO),
        ("[[[12, 40], [15, 52]], [[80, 33]]]", TWO),
        ([[[12, 40], [15, 52]], [[80, 33]]], TWO),
        (" | 80 33", ((), TWO[1])),
        ([12, 40], (ONE[0][:1],)),
        ("1 2 3", (((1.0, 2.0, 3.0),),)),
    ],
)
def test_ways_to_write_points(points, expected):
    assert ClickInput.parse(points) == ClickInput(points=expected)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [("1 0 | 1", ((1, 0), (1,))), ("1,0|0", ((1, 0), (0,))), ("[[1, 0], [1]]", ((1, 0), (1,))), (None, None)],
)
def test_ways_to_write_labels(labels, expected):
    assert ClickInput.parse(TWO, labels).labels == expected


def test_one_label(tmp_path):
    assert ClickInput.parse([12, 40], 0).labels == ((0,),) == ClickInput.parse("12 40", "0").labels
    assert ClickInput.parse() is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"points": "a b"}, "points: found 'a b'; allowed: \"x y; x y\""),
        ({"points": "[[1, 2"}, "points: found invalid JSON"),
        ({"points": "1 2 3 4"}, r"points.0..0.: found .1.0, 2.0, 3.0, 4.0.; allowed: x y, in a volume x y z"),
        ({"points": [[1, np.inf]]}, r"points.0..0.: found"),
        ({"points": {"x": 1}}, "points: found"),
        ({"points": "1 2", "labels": "2"}, r"point_labels.0..0.: found 2"),
        ({"points": "1 2", "labels": "a"}, "point_labels: found 'a'"),
        ({"points": "1 2; 3 4", "labels": "1"}, r"point_labels: found 1 labels; allowed: 2, one for each click"),
        (
            {"points": "1 2; 3 4 | 5 6", "labels": "1 1 1"},
            r"point_labels: found 3 labels; allowed: 2 \| 1, one for",
        ),
        ({"labels": "1"}, "point_labels: found '1'; allowed: no labels without points"),
        ({"mask": "none.png"}, "mask: found none.png: no such file"),
    ],
)
def test_bad_clicks(given, message):
    with pytest.raises(InputError, match=f"arguments: {message}"):
        ClickInput.parse(**given)


def test_mask_is_found_beside_a_list(tmp_path):
    Picture.fromarray(np.ones((3, 4), np.uint8)).save(tmp_path / "m.png")
    (tmp_path / "m.xyz").write_text("a")
    given = ClickInput.parse(mask="m.png", folder=tmp_path)
    assert given.files == (str(tmp_path / "m.png"),) and given.points is None
    assert "m.png" not in str(given.description)  # a folder that is moved is the same
    with pytest.raises(InputError, match="m.xyz"):
        ClickInput.parse(mask="m.xyz", folder=tmp_path)


def image_of(array, kind, **more):
    return Image(path="a", format="array", array=array, kind=kind, **more)


def test_millimetres():
    volume = np.zeros((5, 6, 7), np.uint8)
    placed = image_of(volume, "volume", geometry=Geometry(np.diag([2.0, 2, 3, 1]), (7, 6, 5), "a"))
    given = ClickInput.parse([[4, 2, 6], [12.9, 0, 0]], world=True)
    assert given.resolve(placed).points == [[[2, 1, 2], [6, 0, 0]]]  # up to the outer face of the last voxel
    with pytest.raises(InputError, match="points: found 2 numbers in mm; allowed: 3 numbers in mm"):
        ClickInput.parse([4, 2], world=True).resolve(placed)
    picture = image_of(volume[0], "picture", spacing=(0.5, 0.25))
    assert ClickInput.parse([1, 2], world=True).resolve(picture).points == [[[4, 4]]]
    with pytest.raises(InputError, match="spacing"):
        ClickInput.parse([1, 2], world=True).resolve(image_of(volume[0], "picture"))
    flat = image_of(volume[0], "picture", geometry=Geometry(np.diag([2.0, 2, 3, 1]), (7, 6, 1), "a"))
    assert ClickInput.parse([4, 2, 1], world=True).resolve(flat).points == [[[2, 1]]]
    with pytest.raises(InputError, match=r"points.0.: found .4.0, 2.0, 9.0.; allowed: a place in mm that meets"):
        ClickInput.parse([4, 2, 9], world=True).resolve(flat)


def test_objects_of_a_mask(tmp_path):
    labels = np.zeros((3, 4), np.uint8)
    labels[0, :2], labels[2] = 9, 4
    Picture.fromarray(labels).save(tmp_path / "m.png")
    given = ClickInput.parse([[[1, 1]], []], mask=tmp_path / "m.png")
    clicks = given.resolve(image_of(np.zeros((3, 4), np.uint8), "picture"))
    assert clicks.names is None and clicks.points == [[[1, 1]], []]
    np.testing.assert_array_equal(clicks.masks, [labels == 4, labels == 9])
    with pytest.raises(InputError, match="m.png: shape: found 4 x 3 x 1; allowed: the image's 4 x 4"):
        given.resolve(image_of(np.zeros((4, 4), np.uint8), "picture"))
    with pytest.raises(InputError, match="m.png: mask: found a mask for a volume"):
        given.resolve(image_of(np.zeros((2, 3, 4), np.uint8), "volume"))
    Picture.fromarray(labels * 0).save(tmp_path / "m.png")
    with pytest.raises(InputError, match="m.png: mask: found an empty mask"):
        given.resolve(image_of(np.zeros((3, 4), np.uint8), "picture"))
