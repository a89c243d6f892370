import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from custom import atomic_write
from custom.atomic_write import files_below, is_inside, remove_left_over, write_whole

ROOT = Path(__file__).parents[2]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def start(folder, body):
    """Write a file in another process, which runs ``body`` while the file is open."""
    code = f"""
import os, signal, sys, time
from pathlib import Path
from custom.atomic_write import write_whole
def write(file):
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    {body}
write_whole(Path({str(folder)!r}) / "a.txt", write)
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    assert process.stdout.readline() == b"writing\n"
    return process


@pytest.mark.parametrize("durable", [True, False])
def test_content_reaches_the_disk_before_its_name(tmp_path, monkeypatch, durable):
    done, sync, replace = [], os.fsync, os.replace

    def note_sync(number):
        done.append(Path(os.readlink(f"/proc/self/fd/{number}")))
        sync(number)

    monkeypatch.setattr(atomic_write.os, "fsync", note_sync)
    monkeypatch.setattr(atomic_write.os, "replace", lambda *paths: (done.append("named"), replace(*paths)))
    path = tmp_path / "a.txt"
    size = write_whole(path, lambda file: file.write(b"new"), before=lambda: done.append("before"), durable=durable)
    partial = tmp_path / f".a.txt.{os.getpid()}.partial"
    assert done == ([partial, "before", "named", tmp_path] if durable else ["before", "named"])
    assert size == 3 and path.read_bytes() == b"new" and names(tmp_path) == ["a.txt"]


def test_an_error_leaves_the_old_file_alone(tmp_path):
    write_whole(tmp_path / "a.txt", lambda file: file.write(b"old"))
    with pytest.raises(OSError, match="No space"):
        write_whole(tmp_path / "a.txt", lambda file: (file.write(b"new"), file.flush(), full()))
    assert (tmp_path / "a.txt").read_bytes() == b"old" and names(tmp_path) == ["a.txt"]


def full():
    raise OSError(28, "No space left on device")


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_what_a_kill_has_left_goes_with_the_next_first_write(tmp_path):
    process = start(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")
    assert process.wait() == -signal.SIGKILL
    assert names(tmp_path) == [f".a.txt.{process.pid}.partial"]
    write_whole(tmp_path / "other.txt", lambda file: file.write(b"x"))
    assert names(tmp_path) == ["other.txt"]


@pytest.mark.skipif(os.name != "posix", reason="locks")
def test_what_another_process_is_writing_stays(tmp_path):
    process = start(tmp_path, "sys.stdin.read()")
    (tmp_path / ".b.txt.7.partial").touch()
    remove_left_over(tmp_path)
    assert names(tmp_path) == [f".a.txt.{process.pid}.partial"]
    process.communicate(timeout=60)
    assert process.returncode == 0 and names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("a/b", True),
        ("a", True),
        ("a/../a/b", True),
        ("a/../b", False),
        ("ab", False),
        ("a/../../a", False),
        ("/etc/passwd", False),
    ],
)
def test_inside(tmp_path, path, inside):
    assert is_inside(tmp_path / path, tmp_path / "a") is inside


def test_a_folder_may_be_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    os.symlink(tmp_path / "disk", tmp_path / "set")
    assert is_inside(tmp_path / "set" / "arrays" / "x.npy", tmp_path / "set")


def test_files_below(tmp_path):
    for name in ("b/c.txt", "a.txt", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "dangling").symlink_to("none")
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    (tmp_path / "closed").mkdir(mode=0)
    assert files_below(tmp_path) == [str(tmp_path / name) for name in (".hidden", "a.txt", "b/c.txt")]
    (tmp_path / "closed").chmod(0o700)
    assert files_below(tmp_path / "none") == []
