import numpy as np
import pytest
from scipy import stats

from custom.errors import InputError
from custom.report import Run, compare

MODALITIES = ["CT"] * 7 + ["PET"] * 3 + ["US"] * 5
CASES = tuple((f"case_{i:02d}", modality, 1) for i, modality in enumerate(MODALITIES))


def make_run(name, seeds=1, shift=0.0, seed=0, cases=CASES):
    rng = np.random.default_rng(seed)
    return Run(name, cases, {m: rng.uniform(30, 100, (seeds, len(cases))).round(6) + shift for m in ("dsc", "nsd")})


def test_means_and_deviations():
    run = make_run("a")
    table = compare([run])
    scores = run.scores["nsd"][0]
    parts = [scores[:7], scores[7:10], scores[10:]]
    for name, part in zip(("CT", "PET", "US"), parts, strict=True):
        row = table.row("a", name)
        assert row.cases == len(part) and row.scores["nsd"].seed_std is None
        assert row.scores["nsd"].mean == pytest.approx(np.mean(part))
        assert row.scores["nsd"].std == pytest.approx(np.std(part))
    overall = table.row("a").scores["nsd"]
    means = [np.mean(part) for part in parts]
    assert (overall.mean, overall.std) == (pytest.approx(np.mean(means)), pytest.approx(np.std(means)))
    assert overall.p is None and not overall.differs and table.row("a").cases == 15
    assert table.modalities == ["CT", "PET", "US"]


def test_several_seeds_are_averaged_by_case():
    run = make_run("a", seeds=3)
    table = compare([run])
    mean = Run("a", CASES, {m: values.mean(axis=0, keepdims=True) for m, values in run.scores.items()})
    for modality in ("CT", "PET", "US", None):
        several, one = table.row("a", modality).scores["dsc"], compare([mean]).row("a", modality).scores["dsc"]
        assert (several.mean, several.std) == (pytest.approx(one.mean), pytest.approx(one.std))
    singles = [Run("a", CASES, {m: values[[s]] for m, values in run.scores.items()}) for s in range(3)]
    overall = [compare([single]).row("a").scores["dsc"].mean for single in singles]
    assert table.row("a").scores["dsc"].seed_std == pytest.approx(np.std(overall, ddof=1))


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_signed_rank_of_scipy(shift):
    base = make_run("base", seeds=2)
    noise = np.random.default_rng(1).normal(0, 2, (1, len(CASES))).round(6)
    noise[0, :4] = 0
    other = Run("other", CASES, {m: v.mean(axis=0, keepdims=True) + shift + noise for m, v in base.scores.items()})
    table = compare([other, base], reference="base")
    for metric in ("dsc", "nsd"):
        differences = np.round((other.scores[metric][0] - base.scores[metric].mean(axis=0)), 6)
        expected = stats.wilcoxon(differences[differences != 0]).pvalue  # pairs without a difference left out
        assert table.row("other").scores[metric].p == pytest.approx(expected, rel=1e-12)
        assert table.row("other").scores[metric].differs == (expected < 0.05)
        assert table.row("base").scores[metric].p is None


def test_the_mark_follows_p():
    base = make_run("base")
    better = Run("better", CASES, {"dsc": base.scores["dsc"] + np.arange(1, 16), "nsd": base.scores["nsd"] + 0.0})
    scores = compare([base, better], reference="base").row("better").scores
    assert scores["dsc"].p == pytest.approx(2 / 2**15) and scores["dsc"].differs  # all 15 signs alike, exact
    assert scores["nsd"].p == 1 and not scores["nsd"].differs


def test_rounding_makes_no_difference():
    values = np.array([[0.1, 0.2, 0.3]]).T * np.ones((1, len(CASES)))  # mean 0.2 but for rounding
    run = Run("a", CASES, {"dsc": values, "nsd": values})
    base = Run("b", CASES, {m: np.full((1, len(CASES)), 0.2) for m in ("dsc", "nsd")})
    assert (values.mean(axis=0) != 0.2).all()
    assert compare([run, base], reference="b").row("a").scores["dsc"].p == 1


def test_errors():
    with pytest.raises(InputError, match="names: found none"):
        compare([])
    with pytest.raises(InputError, match="names: found 'a'; allowed: a name for each: NAME=FOLDER"):
        compare([make_run("a"), make_run("a")])
    with pytest.raises(InputError, match="reference: found 'c'; allowed: a, b"):
        compare([make_run("a"), make_run("b")], reference="c")
    with pytest.raises(InputError, match=r"b: cases: found 1 that differ: case_14 \(missing\); allowed: the case"):
        compare([make_run("a"), make_run("b", cases=CASES[:-1])])
