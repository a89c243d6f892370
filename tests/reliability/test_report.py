"""The command of the suite, and its reports."""

import json
import sys
from types import ModuleType

import pytest

from custom.errors import InputError
from tests.reliability import __main__ as program
from tests.reliability.report import PartReport, write_report

ROWS = [{"what": "a|b", "s": 1.23456}, {"what": "c", "s": 2.0}, {"other": 1}]


@pytest.fixture
def parts(monkeypatch):
    """Two parts: one that passes and one that breaks; and one whose module is missing."""
    module = ModuleType("tests.reliability.some")
    module.__spec__ = sys.modules["tests.reliability.report"].__spec__
    module.good = lambda out, *, scale: PartReport("good", [{"n": 10 * scale, "out": out.name}], [], 1.0)
    module.bad = lambda out, *, scale: [][1]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    names = {"good": f"{module.__name__}:good", "bad": f"{module.__name__}:bad", "none": "tests.reliability.none:x"}
    monkeypatch.setattr(program, "PARTS", names)


def test_tables(tmp_path):
    text = write_report([PartReport("fuzz", ROWS, ["x\ny"], 2.6), PartReport("soak", [], [], 1.0)], tmp_path / "out")
    assert (tmp_path / "out" / "report.md").read_text() == text
    assert "## fuzz: 1 failures, 3 s\n\n| what | s |\n| --- | --: |\n| a\\|b | 1.235 |\n| c | 2 |\n\n| other |" in text
    assert "- x y\n\n## soak: passed, 1 s" in text
    reported = json.loads((tmp_path / "out" / "report.json").read_text())
    assert reported["parts"][0] == {"name": "fuzz", "rows": ROWS, "failures": ["x\ny"], "seconds": 2.6}


def test_parts_that_are_asked_for(parts, tmp_path, capsys):
    program.main(out=str(tmp_path), parts="good", scale=0.5)
    assert "| 5 | good |" in capsys.readouterr().out
    for missing in ("none", "other"):
        with pytest.raises(InputError, match=f"parts: found '{missing}'; allowed: good, bad, none"):
            program.main(out=str(tmp_path), parts=f"good,{missing}")


def test_a_broken_part_does_not_stop_the_others(parts, tmp_path):
    with pytest.raises(SystemExit) as stop:
        program.main(out=str(tmp_path), parts=("bad", "good"))
    assert stop.value.code == 1
    reported = json.loads((tmp_path / "report.json").read_text())["parts"]
    assert [part["name"] for part in reported] == ["bad", "good"]
    assert "IndexError" in reported[0]["failures"][0] and reported[1]["failures"] == []


def test_all_that_are_there(parts, tmp_path):
    with pytest.raises(SystemExit):
        program.main(out=str(tmp_path))
    reported = json.loads((tmp_path / "report.json").read_text())["parts"]
    assert [part["name"] for part in reported] == ["good", "bad"]
