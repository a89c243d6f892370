import numpy as np
import pytest

from custom.errors import InputError
from custom.images.intensity import WINDOWS, Window, parse_window, to_uint8

SOFT = WINDOWS["soft_tissue"]


@pytest.mark.parametrize(
    ("value", "level", "width"),
    [("soft_tissue", 40, 400), ("lung", -600, 1500), ("-20,90", -20, 90), ((35, 80), 35, 80), ([1.5, 2], 1.5, 2)],
)
def test_window(value, level, width):
    assert parse_window(value) == Window(level, width)


@pytest.mark.parametrize("value", ["liver", "40", "40,0", "40,-3", "a,b", "1,2,3", "nan,4", 40, True, None])
def test_bad_window(value):
    with pytest.raises(InputError, match="ct_window"):
        parse_window(value)


def test_ct_window_is_linear_and_cut():
    hu = np.array([[[-3000, -160, -60, 40, 240, 3000]]], np.int16)
    assert to_uint8(hu, "CT", SOFT, "x").tolist() == [[[0, 0, 64, 128, 255, 255]]]


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.float32])
def test_percentiles_of_nonzero_voxels_of_the_whole_volume(dtype):
    rng = np.random.default_rng(0)
    image = rng.integers(1, 3000, (20, 9, 7)).astype(dtype)
    image[:, :4] = 0
    low, high = np.percentile(image[image != 0], (0.5, 99.5))
    expected = np.interp(image, (low, high), (0, 255))
    np.testing.assert_allclose(to_uint8(image, "MR", SOFT, "x"), expected, atol=0.5001)


@pytest.mark.parametrize("value", [0, 7])
def test_constant_image_is_black(value):
    assert not to_uint8(np.full((2, 4, 4), value, np.int16), "PET", SOFT, "x").any()


def test_uint8_is_kept():
    image = np.random.default_rng(0).integers(0, 256, (1, 5, 6, 3), np.uint8)
    np.testing.assert_array_equal(to_uint8(image, "CT", SOFT, "x"), image)


@pytest.mark.parametrize(
    ("shape", "equal", "expected"),
    [
        ((1, 5, 6, 3), True, (1, 5, 6)),
        ((1, 5, 6, 4), True, (1, 5, 6)),
        ((1, 5, 6, 4), False, (1, 5, 6, 3)),
        ((1, 5, 6, 1), False, (1, 5, 6)),
        ((2, 5, 6, 3), True, (2, 5, 6, 3)),
    ],
)
def test_channels(shape, equal, expected):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    if equal:
        image[..., :3] = image[..., :1]
    assert to_uint8(image, "US", SOFT, "x").shape == expected


@pytest.mark.parametrize(
    ("image", "match"),
    [
        (np.array([[[np.nan, np.nan]]]), "NaN in every voxel"),
        (np.array([[[1.0, np.inf]]]), "infinite values"),
        (np.array([[[np.nan, -np.inf]]], np.float16), "infinite values"),
        (np.ones((1, 2, 2), complex), "dtype"),
        (np.ones((1, 2, 2, 2)), "shape"),
        (np.ones((2, 2)), "shape"),
    ],
)
def test_bad_image(image, match):
    with pytest.raises(InputError, match=match):
        to_uint8(image, "MR", SOFT, "x")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("modality", ["CT", "MR", "PET"])
def test_nan_is_background(modality, dtype):
    """The rest is scaled as without the background, whatever its size."""
    inside = np.random.default_rng(0).integers(-300, 900, (20, 6, 7)).astype(dtype)
    image = np.full((20, 40, 30), np.nan, dtype)
    image[:, 10:16, 5:12] = inside
    found = to_uint8(image, modality, SOFT, "x", suv_max=500)
    np.testing.assert_array_equal(found[:, 10:16, 5:12], to_uint8(inside, modality, SOFT, "x", suv_max=500))
    assert not found[np.isnan(image)].any()


def test_nan_beside_one_value_or_few():
    assert not to_uint8(np.array([[[np.nan, 7, 7, 0]]]), "MR", SOFT, "x")[0, 0, [0, 3]].any()
    assert to_uint8(np.array([[[np.nan, 7, 7, 5, *[7] * 400]]]), "MR", SOFT, "x")[0, 0, :4].tolist() == [0, 255, 255, 0]


def test_three_equal_channels_with_nan_are_grey():
    image = np.array([1.0, np.nan, 3.0]).repeat(3).reshape(1, 1, 3, 3)
    assert to_uint8(image, "MR", SOFT, "x").shape == (1, 1, 3)


def test_nearly_constant_image_keeps_its_few_other_values():
    image = np.full((1, 40, 50), 7, np.int16)
    image[0, 0, :3] = 0, 3, 11
    assert to_uint8(image, "MR", SOFT, "x")[0, 0, :4].tolist() == [0, 70, 255, 162]


def test_suv_limits():
    suv = np.array([[[-1, 0, 2, 5, 10, 40]]], np.float32)
    assert to_uint8(suv, "PET", SOFT, "x", suv_max=10).tolist() == [[[0, 0, 51, 128, 255, 255]]]
    np.testing.assert_array_equal(to_uint8(suv, "MR", SOFT, "x", suv_max=10), to_uint8(suv, "MR", SOFT, "x"))


@pytest.mark.parametrize("value", [0, -2, np.nan, np.inf, "10", True])
def test_bad_suv_max(value):
    with pytest.raises(InputError, match="suv_max"):
        to_uint8(np.ones((1, 2, 2)), "PET", SOFT, "x", suv_max=value)


def test_booleans():
    assert to_uint8(np.array([[[True, False]]]), "MR", SOFT, "x").tolist() == [[[255, 0]]]


def test_no_voxels():
    assert to_uint8(np.zeros((0, 4, 4)), "MR", SOFT, "x").shape == (0, 4, 4)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, np.float16, np.float32])
def test_whole_range_of_a_type(dtype):
    """The difference of its values is beyond the range of its type."""
    limits = np.finfo(dtype) if np.dtype(dtype).kind == "f" else np.iinfo(dtype)
    image = np.array([[[limits.min, limits.max]]], dtype)
    assert to_uint8(image, "MR", SOFT, "x").tolist() == [[[0, 255]]]
    image = np.repeat(image, 400, axis=2)
    image[0, 0, 0] = 1
    middle = round((1 - float(limits.min)) * 255 / (float(limits.max) - float(limits.min)))
    assert to_uint8(image, "MR", SOFT, "x")[0, 0, [0, 1, -1]].tolist() == [middle, 0, 255]


@pytest.mark.parametrize("unit", [np.float32(1e-44), 5e-324])
def test_denormal_numbers(unit):
    assert to_uint8(np.array([[[0, 1, 3]]]) * unit, "PET", SOFT, "x", suv_max=None)[0, 0, [0, 2]].tolist() == [0, 255]


def test_more_than_single_precision_holds():
    with pytest.raises(InputError, match="x: image: found infinite values; allowed: finite values, as float32"):
        to_uint8(np.array([[[0, 1e300]]]), "MR", SOFT, "x")
