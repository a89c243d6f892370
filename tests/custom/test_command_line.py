import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from custom.command_line import leave_on_sigterm, told_in_one_line

ROOT = Path(__file__).parents[2]
STOPPED = "stopped; the same command carries on from here\n"


def run(body, folder):
    code = f"""
import os, signal, sys, time
from pathlib import Path
from custom.command_line import leave_on_sigterm, told_in_one_line
from custom.errors import InputError
from custom.files import write_whole
def stop(number):
    write_whole(Path({str(folder)!r}) / "a", lambda file: (os.kill(os.getpid(), number), time.sleep(60)))
{body}
"""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("body", "code", "told"),
    [
        ("stop(signal.SIGTERM)", 143, STOPPED),
        ("stop(signal.SIGINT)", 130, STOPPED),
        ("raise InputError('a', 'b', 'c', 'd')", 1, "error: a: b: found c; allowed: d\n"),
        ("raise OSError(28, 'No space left', 'x')", 1, "error: [Errno 28] No space left: 'x'\n"),
        ("raise ValueError('two\\nlines')", 1, "error: two lines\n"),
        ("sys.exit(3)", 3, ""),
    ],
)
def test_ends_with_one_line_and_nothing_half_written(tmp_path, body, code, told):
    done = run(f"with told_in_one_line(ValueError): {body}", tmp_path)
    assert (done.returncode, done.stderr, list(tmp_path.iterdir())) == (code, told, [])


def test_a_mistake_of_the_program_keeps_its_traceback(tmp_path):
    done = run("with told_in_one_line(): 1 / 0", tmp_path)
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr and done.stderr.startswith("Traceback")


def test_the_handler_is_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with told_in_one_line():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_tidies_up_without_a_command_line(tmp_path):
    done = run("leave_on_sigterm(); stop(signal.SIGTERM)", tmp_path)
    assert (done.returncode, done.stderr, list(tmp_path.iterdir())) == (143, "", [])


def test_a_program_keeps_its_own_way_to_end(monkeypatch):
    own = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        handler = signal.getsignal(signal.SIGTERM)
        leave_on_sigterm()
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, own)
    thread = threading.Thread(target=leave_on_sigterm)  # only the main thread may set handlers
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is own
