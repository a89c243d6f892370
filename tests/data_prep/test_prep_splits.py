import random

import numpy as np
import pytest

from custom.data.prepared import load_dataset
from custom.errors import InputError
from data_prep.pipeline import prepare
from data_prep.readers.manifest import ManifestReader
from data_prep.readers.npz import NpzReader
from data_prep.splits import SplitRule, draw_splits, find_leaks

RNG = np.random.default_rng(0)


def case(name, dataset="Set", patient=None, digest=None):
    record = {"case": name, "dataset": dataset, "digest": digest or name}
    return record | ({"patient": patient} if patient else {})


def draw(records, given=None, **rule):
    splits = draw_splits(records, given or [None] * len(records), SplitRule(**rule))
    return {record["case"] for record, split in zip(records, splits, strict=True) if split == "val"}


@pytest.mark.parametrize(
    ("cases", "fraction", "count"),
    [(100, 0.1, 10), (7, 0.25, 2), (2, 0.1, 1), (1, 0.1, 0), (1, 1, 1), (5, 0, 0), (9, 1, 9), (3, 0.01, 1)],
)
def test_count_in_every_data_set(cases, fraction, count):
    records = [case(f"{name}{n}", name) for name in "ABC" for n in range(cases)]
    chosen = draw(records, val_fraction=fraction)
    assert [sum(name.startswith(letter) for name in chosen) for letter in "ABC"] == [count] * 3


def test_order_of_the_cases_plays_no_part_and_larger_fractions_only_add():
    records = [case(f"c{n}", f"D{n % 3}", f"p{n // 4}", f"image{n // 2}") for n in range(120)]
    mixed = random.Random(3).sample(records, len(records))
    assert draw(records, val_fraction=0.3) == draw(mixed, val_fraction=0.3)
    assert draw(records, val_fraction=0.1) < draw(records, val_fraction=0.3)


@pytest.mark.parametrize("by", ["patient", "pattern"])
def test_a_patient_is_on_one_side(by):
    records = [case(f"p{n // 5}_{n}", patient=f"{n // 5}" if by == "patient" else None) for n in range(100)]
    pattern = None if by == "patient" else r"^p(\d+)_"
    chosen = draw(records, val_fraction=0.2, patient_pattern=pattern)
    assert len(chosen) == 20
    assert len({name.split("_")[0] for name in chosen}) == 4


def test_one_image_is_on_one_side_even_across_data_sets():
    records = [case(f"{name}{n}", name, digest=f"{n}") for name in "ABC" for n in range(40)]
    chosen = draw(records, val_fraction=0.5)
    assert {name[1:] for name in chosen if name[0] == "A"} == {name[1:] for name in chosen if name[0] == "C"}
    assert len(chosen) in range(30, 91)


def test_drawn_cases_follow_the_given_split_of_their_patient():
    records = [case(f"c{n}", patient=f"{n // 10}") for n in range(100)]
    given = [("val" if n < 50 else "train") if n % 10 == 0 else None for n in range(100)]
    assert draw(records, given, val_fraction=0.1) == {f"c{n}" for n in range(50)}


def test_leaks_are_listed():
    training = [case("a", patient="1"), case("b", digest="x"), case("c_7_1"), case("d", "Other", patient="2")]
    validation = [case("e", patient="1"), case("f", "Other", digest="x"), case("g_7_2"), case("h", patient="2")]
    assert find_leaks(training, validation, SplitRule()) == [
        "patient 1 of Set: a in training, e in validation",
        "one image: b in training, f in validation",
    ]
    with_pattern = find_leaks(training, validation, SplitRule(patient_pattern="_([0-9])_"))
    assert with_pattern[1] == "patient 7 of Set: c_7_1 in training, g_7_2 in validation"


@pytest.mark.parametrize(
    "values",
    [
        *({"val_fraction": value} for value in (-0.1, 1.1, "a", True, float("nan"))),
        *({"patient_pattern": value} for value in ("(", "p[0-9]+", 3)),
        *({"leakage": value} for value in ("ignore", None, True)),
    ],
)
def test_bad_rule(values):
    with pytest.raises(InputError, match=next(iter(values))):
        SplitRule(**values)


def test_npz_cases_are_drawn_again_when_the_fraction_changes(tmp_path):
    (tmp_path / "in").mkdir()
    for n in range(20):
        image = RNG.integers(0, 256, (12, 12), np.uint8)
        np.savez(tmp_path / "in" / f"2D_US_Set_p{n // 2}_{n}.npz", imgs=image, gts=np.ones_like(image))

    def chosen(**rule):
        report = prepare(NpzReader(tmp_path / "in"), tmp_path / "out", splits=SplitRule(**rule), progress=False)
        prepared = load_dataset(tmp_path / "out")
        assert len(prepared.training) == 20 - len(report.validation)
        return report.reused, {record.case for record in prepared.validation}

    reused, few = chosen(val_fraction=0.1)
    assert (reused, len(few)) == (0, 2)
    reused, many = chosen(val_fraction=0.5)
    assert (reused, len(many)) == (20, 10) and few < many
    reused, patients = chosen(val_fraction=0.3, patient_pattern="_(p[0-9]+)_")
    assert (reused, len(patients), len({name.split("_")[3] for name in patients})) == (20, 6, 3)
    assert chosen(val_fraction=0.1) == (20, few)


def test_leakage_is_an_error_unless_asked_for(manifest, tmp_path, square):
    root, add = manifest
    for n in range(12):
        image = RNG.integers(0, 256, square.shape, np.uint8)
        add(f"t{n}", image, square, patient=f"{n}")
        add(f"v{n}", image, square, patient=f"{n}", split="val")
    index = tmp_path / "out" / "dataset.json"
    for _ in range(2):
        with pytest.raises(InputError, match="24 on both sides: patient 0 of Set: US_Set_t0 in training") as error:
            prepare(ManifestReader(root), tmp_path / "out", progress=False)
        assert str(error.value).count(" in training,") == 10 and not index.exists()
    rule = SplitRule(leakage="warn")
    report = prepare(ManifestReader(root), tmp_path / "out", splits=rule, progress=False)
    assert (report.reused, len(report.leakage), len(load_dataset(tmp_path / "out").training)) == (24, 24, 12)
    with pytest.raises(InputError, match="24 on both sides"):
        prepare(ManifestReader(root), tmp_path / "out", progress=False)
    assert not index.exists()
