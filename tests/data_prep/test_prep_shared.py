"""One real case of every data set, if the real data are available."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from custom.modalities import MODALITIES
from data_prep.readers.manifest import ManifestReader
from data_prep.writer import PrepareOptions, prepare_case

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the real data are not there")


def large_enough(case, smallest=16):
    """Return the foreground of the kept named masks; for a picture, of the kept components."""
    kept = np.zeros(case.label.shape, bool)
    for value in np.unique(case.label[case.label > 0]):
        if value in case.names or "*" in case.names:
            mask = case.label == value
            split = case.image.kind == "picture" and not case.instance
            parts = ndimage.label(mask, np.ones((3, 3, 3)))[0] if split else mask.astype(int)
            kept |= mask & (np.bincount(parts.ravel())[parts] >= smallest)
    return kept


def test_first_case_of_every_data_set(tmp_path):
    reader = ManifestReader(SHARED)
    sources = reader.sources()
    assert len({s.name for s in sources}) == len(sources)
    first = {s.entry["line"]["dataset"]: s for s in reversed(sources)}
    (tmp_path / "arrays").mkdir()
    modalities = set()
    for source in first.values():
        outcome = prepare_case(source, reader, tmp_path, PrepareOptions())
        assert not outcome.problem
        record = outcome.record
        modalities.add(record["modality"])
        image, label = (np.load(tmp_path / record[key]) for key in ("image", "label"))
        ids = np.unique(label)
        assert image.dtype == np.uint8 and image.shape[:3] == label.shape == tuple(record["shape"])
        assert ids[ids > 0].tolist() == list(map(int, record["labels"])) == list(range(1, len(record["labels"]) + 1))
        np.testing.assert_array_equal(label > 0, large_enough(reader.load(source)))
    assert modalities == set(MODALITIES)
