"""The frozen CLIP's features of every mask of a prepared set, as ``python -m data_prep clip-features`` writes them.

CLIP is frozen, so the feature of a fixed crop never changes and can be computed once. The crop is the tight box of the
mask in the prepared image: the random shift of the box and the flips of a training do not affect it. Use the features
for training. An evaluation with shifted boxes must run CLIP on those boxes, because the tight box contains more
information than the prompt that is scored.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from custom.data.prepared import INDEX_NAME, open_array
from custom.errors import InputError
from custom.json_files import read_json

FORMAT = "mcp-medsam-clip-features"
VERSION = 1
FEATURES_INDEX = "clip_features.json"
FEATURES_ARRAY = "clip_features.npy"
FEATURES_KEYS = "clip_features.keys.npy"
_REMEDY = "run `python -m data_prep clip-features` on this set"


class ClipFeatures:
    """Read the features, memory-mapped.

    The files, beside ``dataset.json``:

    - ``clip_features.npy``: (masks, F) float32, one row for each mask in ``dataset.json``;
    - ``clip_features.keys.npy``: (masks, 2) int32, (z, label id) of each row, ascending inside a case;
    - ``clip_features.json``: name of the CLIP, digest of the ``dataset.json`` it was made for, and each case's rows
      as [first, end].

    Args:
        dataset_dir: folder of the prepared set.

    Attributes:
        clip: name of the CLIP.
        width: width F of the features.

    Raises:
        InputError: there are no features, or they belong to another ``dataset.json``.
    """

    def __init__(self, dataset_dir: str | os.PathLike[str]) -> None:
        root = Path(os.path.abspath(dataset_dir))
        self._index, self._path = root / FEATURES_INDEX, root / FEATURES_ARRAY
        index = read_json(self._index, _REMEDY)
        try:
            kind, made_for = (index["format"], index["version"]), index["dataset"]
            self.clip, self.width = str(index["clip"]), int(index["width"])
            self._rows = {case: (int(first), int(end)) for case, (first, end) in index["cases"].items()}
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
            raise InputError(self._index, "file", f"no index of features ({error})", _REMEDY) from error
        if kind != (FORMAT, VERSION):
            raise InputError(self._index, "format", kind, f"{(FORMAT, VERSION)}; {_REMEDY}")
        if made_for != index_digest(root):
            raise InputError(self._index, "dataset", f"features of another {INDEX_NAME}", _REMEDY)
        keys, features = open_array(root / FEATURES_KEYS), open_array(self._path)
        if (features.shape[1:], keys.shape) != ((self.width,), (*features.shape[:1], 2)):
            found = f"shape {features.shape} with keys {keys.shape}"
            raise InputError(self._path, "array", found, f"(masks, {self.width}) with keys (masks, 2); {_REMEDY}")
        if not all(0 <= first <= end <= len(keys) for first, end in self._rows.values()):
            raise InputError(self._index, "cases", "rows that are not there", f"0 to {len(keys)}; {_REMEDY}")
        self._keys = np.array(keys)

    def __call__(self, case: str, z: int, label_ids: Sequence[int]) -> np.ndarray:
        """Return the features of some masks of one slice: NxF float32.

        Raises:
            InputError: a mask has no feature.
        """
        first, end = self._rows.get(case, (0, 0))
        keys = self._keys[first:end]
        # The array is opened at every call, so that this object can be sent to worker processes.
        features = open_array(self._path)
        rows = []
        for label_id in label_ids:
            (found,) = np.nonzero((keys[:, 0] == z) & (keys[:, 1] == label_id))
            if not len(found):
                raise InputError(self._index, "cases", f"no feature of {case}, slice {z}, id {label_id}", _REMEDY)
            rows.append(first + int(found[0]))
        return np.array(features[rows])


def index_digest(root: Path) -> str:
    """Return the SHA-256 of a set's ``dataset.json``, which identifies everything the features were made from."""
    try:
        return hashlib.sha256((root / INDEX_NAME).read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(root / INDEX_NAME, "file", error.strerror, "a prepared set") from error
