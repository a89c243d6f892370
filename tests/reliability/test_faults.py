"""Some faults on the commands that run quickly; ``python -m tests.reliability`` tries many on all of them."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.reliability import faults
from tests.reliability.commands import COMMANDS
from tests.reliability.faults import CUT, FAULTS, FULL, KILL, READ_ONLY, SLOW, TERMINATE, VANISH, Fault, Trials

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")


@pytest.fixture(scope="module")
def processes():
    return faults.Processes()


LONG = ("inference", "evaluate")  # MONAI's workflows take seconds to start, and each fault starts one twice


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in LONG else name
        for name, command in COMMANDS.items()
        if not command.heavy
    ],
)
def test_faults(processes, tmp_path, name):
    trials = Trials(COMMANDS[name], tmp_path / name, processes)
    for kind in (KILL, TERMINATE, FULL, CUT, READ_ONLY, VANISH, SLOW):
        for fault in trials.places(kind, 1):
            assert trials.run(fault) == []


def careless(inputs: Path, out: Path) -> None:
    """Write like a careless program."""
    out.mkdir(exist_ok=True)
    with open(out / ".note", "w") as file:
        file.write("half")
    with open(out / "result.txt", "w") as file:
        file.write((inputs / "list.json").read_text() * 100)
        file.flush()
        os.mkdir(out / "more")
    (out / ".note").unlink()
    os.rmdir(out / "more")


@pytest.mark.parametrize(
    ("fault", "reported"),
    [
        (Fault(TERMINATE, 2), "code -15, not 143"),
        (Fault(KILL, 5), "ends with code 1: "),  # "more" is there
        (Fault(CUT, 3000), "not reported in one line"),
        (Fault(READ_ONLY), "a traceback"),
        (Fault(VANISH, 1), "a traceback"),
    ],
)
def test_a_careless_program_is_found_out(processes, tmp_path, fault, reported):
    trials = Trials(replace(COMMANDS["segment"], run=careless), tmp_path / "careless", processes)
    assert any(reported in line for line in trials.run(fault))


def test_every_fault_has_a_place(processes, tmp_path):
    trials = Trials(replace(COMMANDS["segment"], run=careless), tmp_path / "careless", processes)
    assert trials.undisturbed.changes == 6 and trials.undisturbed.readings == 1
    for kind in FAULTS:
        assert trials.places(kind, 1) and len(trials.places(kind, 3)) <= 3
    assert [fault.at for fault in trials.places(KILL, 4)] == [1, 3, 4, 6]
