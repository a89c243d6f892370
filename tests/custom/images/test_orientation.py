import numpy as np
import pytest

from custom.images.orientation import upright


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
