import json

import numpy as np
import pytest

from custom.data.clip_features import FEATURES_ARRAY, FEATURES_INDEX, FEATURES_KEYS, FORMAT, ClipFeatures, index_digest
from custom.errors import InputError


@pytest.fixture
def write(tmp_path):
    """Return a function that writes features of three masks, with changes to their index, and the folder."""
    (tmp_path / "dataset.json").write_text("{}")
    np.save(tmp_path / FEATURES_KEYS, np.array([[0, 1], [0, 2], [1, 1]], np.int32))

    def save(shape=(3, 4), **changes):
        np.save(tmp_path / FEATURES_ARRAY, np.arange(np.prod(shape), dtype=np.float32).reshape(shape))
        index = {"format": FORMAT, "version": 1, "clip": "x", "width": 4, "dataset": index_digest(tmp_path)}
        index |= {"cases": {"a": [0, 2], "b": [2, 3]}} | changes
        (tmp_path / FEATURES_INDEX).write_text(json.dumps(index))
        return tmp_path

    return save


def test_features(write):
    np.testing.assert_array_equal(ClipFeatures(write())("b", 1, [1]), [[8, 9, 10, 11]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cases": {"a": [0, 4]}}, "cases: found rows that are not there; allowed: 0 to 3"),
        ({"cases": {"a": [-1, 2]}}, "cases: found rows"),
        ({"cases": {"a": [0]}}, "no index of features"),
        ({"cases": {"a": ["x", 2]}}, "no index of features"),
        ({"cases": [[0, 2]]}, "no index of features"),
        ({"width": float("inf")}, "no index of features"),
        ({"width": 5}, "found shape"),
        ({"shape": (2, 4)}, "found shape"),
        ({"shape": (12,)}, "found shape"),
        ({"version": 2}, "format: found"),
    ],
)
def test_malformed_features(write, changes, message):
    with pytest.raises(InputError, match=message):
        ClipFeatures(write(**changes))
