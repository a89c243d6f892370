import sys

import numpy as np
import pytest

from custom.data.prepared import load_dataset
from custom.modalities import MODALITIES
from data_prep import DEFAULT_DEMO_DIR, cli

GREY = np.full((32, 48), 90, np.uint8)


@pytest.fixture
def call(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["data_prep", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_demo_is_the_same_on_every_run(call, tmp_path):
    code, out, err = call("demo", "--out", tmp_path / "a", "--workers", 2)
    assert (code, err) == (0, "") and "66 cases in" in out
    assert call("demo", "--out", tmp_path / "b", "--workers", 1)[0] == 0
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) == 133
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)
    assert sum((tmp_path / "a" / f).stat().st_size for f in files) < 25e6
    prepared = load_dataset(tmp_path / "a")
    assert prepared.modalities == MODALITIES
    assert (len(prepared.training), len(prepared.validation)) == (44, 22)


def test_default_demo_folder():
    assert DEFAULT_DEMO_DIR.parts[-2:] == ("data", "demo")
    assert (DEFAULT_DEMO_DIR.parents[1] / "data_prep").is_dir()


def test_skipped_cases_are_told_and_exit_with_1(call, manifest, square, tmp_path):
    root, add = manifest
    add("good", GREY, square)
    add("empty", GREY, square * 0)
    code, out, err = call("manifest", "--src", root, "--out", tmp_path / "out", "--workers", 1)
    assert (code, err) == (1, "")
    assert [line for line in out.splitlines() if line.startswith("skipped: ")] == [
        f"skipped: {root}/US/empty.label.png: label: found no foreground; allowed: at least one id above 0"
    ]
    assert len(load_dataset(tmp_path / "out").training) == 1


def test_nothing_usable(call, manifest, square, tmp_path):
    root, add = manifest
    add("empty", GREY, square * 0)
    code, out, err = call("manifest", "--src", root, "--out", tmp_path / "out", "--workers", 1)
    assert code == 1 and "skipped: " in out
    assert err.startswith("error: ") and err.count("\n") == 1
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_npz(call, tmp_path, square):
    (tmp_path / "in").mkdir()
    np.savez(tmp_path / "in" / "2D_US_a.npz", imgs=GREY, gts=square)
    code, *_ = call("npz", "--src", tmp_path / "in", "--out", tmp_path / "out", "--val_fraction", 1, "--workers", 1)
    assert code == 0 and [r.case for r in load_dataset(tmp_path / "out").validation] == ["2D_US_a"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("demo", "--workers", "0"),
        ("demo", "--workers", "two"),
        ("demo", "--min_size", "-1"),
        ("demo", "--components", "maybe"),
        ("demo", "--ct_window", "liver"),
        ("demo", "--bogus", "1"),
        ("demo", "--out"),
        ("manifest",),
        ("manifest", "--src", "no such folder"),
        ("npz", "--src", ".", "--val_fraction", "3"),
        ("dicom",),
    ],
)
def test_bad_arguments_are_one_line(call, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    if "--out" not in arguments and arguments[0] == "demo":
        arguments += ("--out", "out")
    code, out, err = call(*arguments)
    assert (code, out) == (1, "")
    assert err.startswith("error: ") and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("value", "expected"), [("40,350", (40, 350)), ("-600,1500", (-600, 1500)), ("bone", (400, 1800))]
)
def test_window_on_the_command_line(monkeypatch, call, value, expected):
    seen = {}
    monkeypatch.setattr(cli, "prepare", lambda reader, out, **options: seen.update(options) or sys.exit(7))
    assert call("demo", "--ct_window", value)[0] == 7
    window = seen["options"].window
    assert (window.level, window.width) == expected


def test_help_starts_nothing(call):
    code, out, err = call("demo", "--help")
    assert code == 0 and "phantom" in out + err
