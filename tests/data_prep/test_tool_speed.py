import pytest

from custom.errors import InputError
from data_prep import speed
from data_prep.speed import measure


@pytest.mark.slow
def test_report(prepared_demo, monkeypatch):
    monkeypatch.setattr(speed, "_DEPTHS", (8, 80))
    report = measure(prepared_demo.root, seconds=0.01)
    assert set(report.slice_ms) == {8, 80} and all(0 < ms < 1000 for ms in report.slice_ms.values())
    assert set(report.cold_slice_ms) in ({8, 80}, set())
    # A slice of a deep volume must not take longer because of the others; the bound allows for noise.
    assert report.slice_ms[80] < 10 * report.slice_ms[8]
    assert report.samples_per_s > 0 and report.samples_per_cpu_s > 0
    names = [name.partition(". ")[2] for name in report.transform_ms]
    assert names[:3] == ["find the mask", "LoadSliced", "PickMasksd"] and "ToFramed" in names
    text = str(report)
    assert f"{report.samples_per_s:.0f}" in text and "512 x 512 x 80" in text
    assert len(text.splitlines()) == 4 + len(names)


@pytest.mark.parametrize("seconds", [0, -1, True, "a"])
def test_bad_seconds(prepared_demo, seconds):
    with pytest.raises(InputError, match="seconds: found .*; allowed: a positive number"):
        measure(prepared_demo.root, seconds=seconds)


def test_no_set(tmp_path):
    with pytest.raises(InputError, match="dataset.json"):
        measure(tmp_path)
