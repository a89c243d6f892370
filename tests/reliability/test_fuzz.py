"""The quick part: some hundreds of damaged files for every reader, and a test that the fuzzer reports failures."""

import ctypes
import os
import time
from pathlib import Path
from random import Random

import numpy as np
import pytest

from custom.errors import InputError
from tests.reliability import fuzz, mutation
from tests.reliability.fuzz import FuzzResult, NotReadyError, Target, damaged, run, run_target
from tests.reliability.security import HOSTILE
from tests.reliability.targets import TARGETS

#: Executions of slow readers, which read a folder of several files; executions of the others.
SLOW, QUICK = {"dicom_series": 60, "dicom_seg": 100, "tiff": 150}, 250


@pytest.mark.parametrize("name", TARGETS)
def test_every_damaged_file_is_read_or_refused(name):
    executions = SLOW.get(name, QUICK)
    result = run(name, executions, seed=0)
    assert result.failures == []
    assert result.executions == executions == result.refused + result.accepted
    assert result.refused and result.accepted  # else the damage is too small or too large to find anything


@pytest.mark.parametrize("name", HOSTILE)
def test_every_hostile_file_is_refused(name):
    result = run_target(HOSTILE[name], 1, 0)
    assert (result.failures, result.refused) == ([], 1)


# --- the fuzzer ---


LETTERS = b"abcdefgh" * 8


def letters(folder):
    return [LETTERS]


def damage(path, action):
    """Act on files that have changed."""
    if path.read_bytes() != LETTERS:
        action()


def wrong(path):
    damage(path, lambda: [][1])


def leave(path):
    damage(path, lambda: os._exit(7))


def crash(path):
    damage(path, lambda: ctypes.string_at(0))


def hang(path):
    def forever():
        while True:
            time.process_time()

    damage(path, forever)


def swallow(path):
    damage(path, lambda: np.ones(4 * 10**8 // 8))


def lines(path):
    def refuse():
        raise ValueError("a\nb")

    damage(path, refuse)


def exhausted(path):
    def refuse():
        try:
            raise MemoryError
        except MemoryError as error:
            raise InputError("a", "b", "c", "d") from error

    damage(path, refuse)


def fine(path):
    if path.read_bytes()[:1] != b"a":
        raise InputError(path, "file", "other letters", "letters")


@pytest.mark.parametrize(
    ("read", "reported"),
    [
        (wrong, "IndexError at tests/reliability/test_fuzz.py"),
        (leave, "ended with code 7"),
        (crash, "ended with code -11"),
        (swallow, "MB of memory"),
        (lines, "a message of 2 lines"),
        (exhausted, "out of memory"),
    ],
)
def test_a_wrong_answer_is_reported(read, reported):
    result = run_target(Target("a", letters, read, errors=(InputError, ValueError)), 4, 0)
    assert result.executions == 4 and result.failures and all(reported in line for line in result.failures)


def test_a_reader_that_hangs_is_stopped(monkeypatch):
    monkeypatch.setattr(fuzz, "SECONDS", 0.2)
    result = run_target(Target("a", letters, hang), 3, 3)
    assert result.executions == 3 and "more than 0.2 s" in result.failures[0]


def test_a_target_that_cannot_be_made_ready():
    with pytest.raises(NotReadyError, match="cannot be made ready: code 1 Process"):
        run_target(Target("a", fine, fine), 3, 0)


def test_a_run_can_be_repeated():
    target = Target("a", letters, fine)
    results = [run_target(target, 100, seed) for seed in (0, 0, 1)]
    assert results[0].failures == [] and 0 < results[0].refused < 100
    assert results[0].refused == results[1].refused
    files = [damaged(target, letters(None), seed, number) for seed in (0, 1) for number in range(50)]
    assert len(set(files)) > 90


def test_the_long_part_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    asked = []

    def answer(name, executions, seed):
        asked.append((name, seed))
        if len(asked) == 30:
            raise KeyboardInterrupt
        return FuzzResult(executions, executions - 1, 1, ["wrong"] if name == "png" else [], 0.5, 2.0)

    monkeypatch.setattr(fuzz, "run", answer)
    monkeypatch.setattr(fuzz.os, "cpu_count", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        fuzz.run_part(tmp_path, scale=0.1)
    report = fuzz.run_part(tmp_path, scale=0.1)
    assert len(set(asked)) == 2 * len(TARGETS) and all(row["tried"] == 20_000 for row in report.rows)
    assert report.failures == ["png: wrong"] * 2
    done = len(asked)
    assert fuzz.run_part(tmp_path, scale=0.1).rows == report.rows and len(asked) == done


def test_a_share_that_could_not_be_run_stops_no_other(tmp_path, monkeypatch):
    asked = []

    def answer(name, executions, seed):
        asked.append(name)
        if asked.count("png") == 1 and name == "png":
            raise NotReadyError("the target cannot be made ready: code 255")
        return FuzzResult(executions, executions - 1, 1, [], 0.5, 2.0)

    monkeypatch.setattr(fuzz, "run", answer)
    monkeypatch.setattr(fuzz.os, "cpu_count", lambda: 1)
    report = fuzz.run_part(tmp_path, scale=0.01)
    assert report.failures == ["png: seed 0: the target cannot be made ready: code 255"]
    assert {row["target"] for row in report.rows if row["tried"]} == TARGETS.keys() - {"png"}
    report = fuzz.run_part(tmp_path, scale=0.01)
    assert report.failures == [] and len(asked) == len(TARGETS) + 1


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_are_valid(name, tmp_path):
    """At least one of them is read; else no code after the first check is reached."""
    target, read = TARGETS[name], 0
    for content in target.seeds(tmp_path):
        (tmp_path / target.file).write_bytes(content)
        try:
            target.read(tmp_path / target.file)
        except InputError:
            continue
        read += 1
    assert read


@pytest.mark.parametrize("name", ["bytes", "json", "lines", "zip", "gzip", "png"])
def test_mutations_change_something(name, tmp_path):
    kind = {"json": "case_list", "lines": "manifest", "zip": "npz", "gzip": "nifti_gz"}.get(name, "png")
    (seed, *_) = TARGETS[kind].seeds(tmp_path)
    mutate = getattr(mutation, f"mutate_{name}")
    assert sum(mutate(Random(n), seed) != seed for n in range(40)) > 30


def test_deep_values_inside_of_each_other_can_be_written(tmp_path):
    """This execution nests a deep value in another one; without a file there is no trial."""
    target = TARGETS["coco"]
    assert damaged(target, target.seeds(tmp_path), 16, 8219).count(b"[") > 500


def test_replay_writes_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError):
        for number in range(100):
            fuzz.replay("png", 0, number)
    assert Path("a.png").read_bytes() == damaged(TARGETS["png"], TARGETS["png"].seeds(tmp_path), 0, number)
