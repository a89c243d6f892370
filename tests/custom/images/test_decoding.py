import numpy as np
import pytest

from custom.errors import InputError
from custom.images.decoding import as_label, check_size, decoding, upright
from custom.limits import PIXELS

MAX_PIXELS = PIXELS.default


def test_label_values():
    assert as_label(np.array([0.0, 3.0], np.float32), "x").tolist() == [0, 3]
    assert as_label(np.array([True]), "x").dtype == np.uint8
    for bad in ([0.5], [np.nan], [-1], ["a"]):
        with pytest.raises(InputError, match="x: label"):
            as_label(np.array(bad), "x")


@pytest.mark.parametrize(
    ("shape", "fine"),
    [
        ((1, 1, MAX_PIXELS), True),
        ((1, 1, MAX_PIXELS + 1), False),
        ((24, 1, MAX_PIXELS), True),
        ((10**6, 99, 99), False),
    ],
)
def test_size(shape, fine):
    if fine:
        check_size(shape, "x")
    else:
        with pytest.raises(InputError, match="x: size"):
            check_size(shape, "x")


def test_every_error_becomes_one_line(tmp_path):
    (tmp_path / "f").touch()
    with pytest.raises(InputError, match=r"f: file: found KeyError \('a b'\); allowed: a readable thing"):
        with decoding(tmp_path / "f", "thing"):
            raise KeyError("a b")
    with pytest.raises(InputError, match="no such file"):
        with decoding(tmp_path / "g", "thing"):
            pass


@pytest.mark.parametrize("channels", [(), (3,)])
def test_every_slice_is_turned(channels):
    array = np.random.default_rng(0).integers(0, 256, (2, 4, 5, *channels), np.uint8)
    for orientation, turns, flip in [(3, 2, False), (6, -1, False), (8, 1, False), (2, 0, True), (4, 2, True)]:
        found, note = upright(array, orientation)
        expected = np.rot90(array, turns, axes=(1, 2))
        np.testing.assert_array_equal(found, expected[:, :, ::-1] if flip else expected)
        assert note == {"exif_orientation": orientation, "upright": True} and found.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize("value", [1, 0, 9, -3, 2.5, None, "6", (6, 6)])
def test_other_values_turn_nothing(value):
    array = np.zeros((1, 2, 3))
    assert upright(array, value) == (array, {})
