import time
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import chisquare

from custom.data.mask_table import MaskTable
from custom.data.sampler import ModalityBalancedSampler
from custom.errors import InputError
from custom.modalities import MODALITIES

DRAWS = 100_000
# (modality, cases, slices of a case): 76% of the slices are CT, 13% MR, 0.07% Microscopy, as in the paper.
COUNTS = [
    ("CT", 38, 200),
    ("MR", 26, 50),
    ("Endoscopy", 300, 1),
    ("X-Ray", 400, 1),
    ("PET", 4, 50),
    ("US", 193, 1),
    ("Microscopy", 7, 1),
]


def make_cases():
    rng = np.random.default_rng(0)
    cases = []
    for modality, count, depth in COUNTS:
        for _ in range(count):
            slices = [(z, list(range(1, 1 + rng.integers(1, 5)))) for z in range(3, 3 + depth)]
            cases.append(SimpleNamespace(modality=modality, slices=slices))
    order = rng.permutation(len(cases))  # modalities need not come in blocks
    return [cases[i] for i in order]


@pytest.fixture(scope="module")
def table():
    return MaskTable(make_cases())


def levels(table, draws):
    """Flat mask indices -> (case, slice row) of each."""
    rows = np.searchsorted(table.mask_offset, draws, side="right") - 1
    return np.searchsorted(table.slice_offset, rows, side="right") - 1, rows


def uniform(observed, size):
    """The p-value of a uniform law on ``size`` values."""
    return chisquare(np.bincount(observed, minlength=size)).pvalue


def test_table_locates_every_mask():
    cases = make_cases()
    cases.insert(2, SimpleNamespace(modality="OCT", slices=[]))
    cases.insert(5, SimpleNamespace(modality="mri", slices=[(0, []), (4, [9, 300]), (6, [])]))
    cases.append(SimpleNamespace(modality="OCT", slices=[(1, [])]))
    table = MaskTable(cases)
    expected = [(c, z, label) for c, case in enumerate(cases) for z, labels in case.slices for label in labels]
    assert len(table) == len(expected)
    assert [table.locate(i) for i in range(len(table))] == expected
    assert table.modality[5] == MODALITIES.index("MR")
    for index in (-1, len(table)):
        with pytest.raises(IndexError):
            table.locate(index)


def test_table_without_cases():
    assert len(MaskTable([])) == 0


def test_modality_strategy_is_uniform_at_every_level(table):
    sampler = ModalityBalancedSampler(table, length=DRAWS, seed=1)
    start = time.perf_counter()
    draws = np.fromiter(sampler, np.int64)
    assert time.perf_counter() - start < 1
    assert len(draws) == len(sampler) == DRAWS
    cases, rows = levels(table, draws)
    modality = table.modality[cases]
    present = np.unique(table.modality)
    assert set(np.unique(modality)) == set(present) == {MODALITIES.index(m) for m, *_ in COUNTS}
    assert uniform(np.searchsorted(present, modality), len(present)) > 1e-3
    depth, masks = np.diff(table.slice_offset), np.diff(table.mask_offset)
    for m in present:
        members = np.flatnonzero(table.modality == m)
        assert uniform(np.searchsorted(members, cases[modality == m]), len(members)) > 1e-3
    for d in (50, 200):
        inside = (rows - table.slice_offset[cases])[depth[cases] == d]
        assert uniform(inside, d) > 1e-3
    for k in (2, 3, 4):
        inside = (draws - table.mask_offset[rows])[masks[rows] == k]
        assert uniform(inside, k) > 1e-3


def test_case_strategy(table):
    cases, rows = levels(table, np.array(list(ModalityBalancedSampler(table, strategy="case", length=DRAWS))))
    assert uniform(cases, len(table.modality)) > 1e-3
    depth = np.diff(table.slice_offset)
    assert uniform((rows - table.slice_offset[cases])[depth[cases] == 200], 200) > 1e-3


def test_slice_strategy(table):
    draws = np.array(list(ModalityBalancedSampler(table, strategy="slice", length=DRAWS)))
    cases, rows = levels(table, draws)
    assert uniform(rows, len(table.z)) > 1e-3
    assert np.mean(table.modality[cases] == MODALITIES.index("CT")) == pytest.approx(0.76, abs=0.01)
    assert np.mean(table.modality[cases] == MODALITIES.index("Microscopy")) < 0.001
    assert uniform((draws - table.mask_offset[rows])[np.diff(table.mask_offset)[rows] == 4], 4) > 1e-3


@pytest.mark.parametrize("strategy", ["modality", "case", "slice"])
@pytest.mark.parametrize(("length", "world"), [(1000, 2), (1001, 2), (1000, 3), (5, 8)])
def test_ranks_deal_out_the_single_stream(table, strategy, length, world):
    options = {"strategy": strategy, "length": length, "seed": 4}
    samplers = [ModalityBalancedSampler(table, num_replicas=world, rank=r, **options) for r in range(world)]
    single = ModalityBalancedSampler(table, **options)
    for _ in range(2):
        parts = [list(s) for s in samplers]
        assert {len(p) for p in parts} == {len(s) for s in samplers} == {-(-length // world)}
        together = np.stack(parts, axis=1).ravel()
        assert together[:length].tolist() == list(single)


def test_two_ranks_follow_the_same_law(table):
    for rank in range(2):
        sampler = ModalityBalancedSampler(table, length=DRAWS, seed=2, num_replicas=2, rank=rank)
        modality = table.modality[levels(table, np.array(list(sampler)))[0]]
        present = np.unique(table.modality)
        assert uniform(np.searchsorted(present, modality), len(present)) > 1e-3


def test_seed_and_epoch(table):
    def new(seed=7):
        return ModalityBalancedSampler(table, length=200, seed=seed)

    first, second = new(), new()
    epochs = [list(first) for _ in range(3)]
    assert [list(second) for _ in range(3)] == epochs
    assert len({tuple(e) for e in epochs}) == 3
    assert list(new(8)) != epochs[0]
    second.set_epoch(1)
    assert [list(second), list(second)] == epochs[1:]


def test_default_length_counts_cases_with_masks():
    cases = [SimpleNamespace(modality="CT", slices=[(0, [1])]), SimpleNamespace(modality="MR", slices=[(0, [])])]
    sampler = ModalityBalancedSampler(MaskTable(cases))
    assert len(sampler) == 1 and list(sampler) == [0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "patient"}, "modality, case, slice"),
        ({"length": 0}, "length"),
        ({"num_replicas": 2, "rank": 2}, "rank"),
    ],
)
def test_wrong_options(table, options, message):
    with pytest.raises(InputError, match=message):
        ModalityBalancedSampler(table, **options)


def test_empty_table():
    with pytest.raises(InputError, match="at least one mask"):
        ModalityBalancedSampler(MaskTable([]))
