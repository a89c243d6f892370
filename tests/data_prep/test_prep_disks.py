"""Disks that are full or read-only: one line reports it, and no half-written file stays."""

import errno
import os
import re
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from custom import atomic_write
from tests.data_prep.malformed.inputs import GREY, LABEL
from tests.data_prep.malformed.npz_files import npz, npz_good

ROOT = Path(__file__).resolve().parents[2]


def test_an_output_folder_inside_a_file(call, source, tmp_path):
    npz_good(source)
    (tmp_path / "file").write_text("")
    code, out, err = call("npz", "--src", source, "--out", tmp_path / "file" / "out", "--workers", 1)
    assert (code, out) == (1, "") and re.search(r"out: found Not a directory", err) and err.count("\n") == 1


@pytest.mark.skipif(os.name != "posix", reason="rights of files")
def test_a_read_only_output_folder(call):
    with tempfile.TemporaryDirectory() as name:  # not below tmp_path, which others may not enter
        root = Path(name)
        (root / "in").mkdir()
        npz_good(root / "in")
        for done in (False, True):
            (root / "out").mkdir(exist_ok=True)
            if done:
                assert call("npz", "--src", root / "in", "--out", root / "out", "--workers", 1)[0] == 0
            before = contents(root)
            for folder in (root, root / "out", *root.glob("out/arrays")):
                folder.chmod(0o555)
            with as_nobody():
                code, out, err = call("npz", "--src", root / "in", "--out", root / "out", "--workers", 1)
            assert (code, out) == (1, "") and "out: found Permission denied" in err and err.count("\n") == 1
            assert contents(root) == before
            for folder in (root, root / "out", *root.glob("out/arrays")):
                folder.chmod(0o755)


@contextmanager
def as_nobody():
    """Drop the rights of root, for whom no folder is read-only."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("file", ["2D_US_b.image.npy", "2D_US_b.label.npy", "report.json", "dataset.json"])
def test_a_disk_that_fills_up(call, source, tmp_path, monkeypatch, file):
    """Finished files stay, no file is half-written, and with free space the next run continues."""
    for name in "abc":
        npz(f"2D_US_{name}")(source)
    command = ("npz", "--src", source, "--workers", 1, "--leakage", "warn", "--out")
    assert call(*command, tmp_path / "once")[0] == 0
    real = atomic_write.os.replace

    def full(partial, path):
        if Path(path).name == file:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(partial, path)

    monkeypatch.setattr(atomic_write.os, "replace", full)
    code, out, err = call(*command, tmp_path / "out")
    assert (code, out) == (1, "") and err.count("\n") == 1
    assert err.startswith(f"error: {tmp_path}") and f"{file}: out: found No space left on device" in err
    left = contents(tmp_path / "out")
    assert not [path for path in left if path.name.endswith(".partial") or path.name == "dataset.json"]
    finished = left[Path("journal.jsonl")].count(b"\n")
    assert finished == (1 if "_b." in file else 3)
    monkeypatch.setattr(atomic_write.os, "replace", real)
    assert f"3 cases ({finished} of them by an earlier run)" in call(*command, tmp_path / "out")[1]
    assert contents(tmp_path / "out") == contents(tmp_path / "once")


@pytest.mark.skipif(sys.platform != "linux", reason="a limit for the size of files")
def test_a_limit_for_the_size_of_files(source, tmp_path):
    """The same with worker processes and the error of the system."""
    for name in "abc":
        npz(f"2D_US_{name}")(source)
    npz("2D_US_large", np.tile(GREY, (9, 9)), np.tile(LABEL, (9, 9)))(source)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (99_999, 99_999)); "
    command = [sys.executable, "-c", limit + "from data_prep.cli import main; main()"]
    command += ["npz", "--src", source, "--leakage", "warn", "--workers", "2", "--out", tmp_path / "out"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1 and run.stdout == ""
    assert re.fullmatch(r"error: .*/out: out: found File too large; .*\n", run.stderr)
    left = contents(tmp_path / "out")
    assert Path("dataset.json") not in left and not [path for path in left if path.name.endswith(".partial")]
