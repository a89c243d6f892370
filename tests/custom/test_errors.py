import copy
import subprocess
import sys
from pathlib import Path

import numpy as np

from custom.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


def test_one_line():
    error = InputError("a.npz", "boxes", np.zeros((2, 2)), "one line\nhere too")
    assert str(error) == "a.npz: boxes: found [[0. 0.]  [0. 0.]]; allowed: one line here too"
    assert isinstance(error, ValueError) and error.source == "a.npz" and error.field == "boxes"


def test_survives_another_process():
    error = InputError(Path("a.npz"), "boxes[2]", [9, 4, 3, 8], "x_min < x_max")
    copied = copy.deepcopy(error)  # as on the way to another process
    assert type(copied) is InputError and str(copied) == str(error)
    assert str(error) == "a.npz: boxes[2]: found [9, 4, 3, 8]; allowed: x_min < x_max"


def run(body):
    code = "from custom.errors import InputError, report_input_errors\n" + "report_input_errors()\n" * 2 + body
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_program_reports_the_one_line():
    wrapped = (
        "try:\n"
        "    try: raise InputError('a', 'b', 'c', 'd')\n"
        "    except InputError as error: raise RuntimeError('while building') from error\n"
        "except RuntimeError: raise KeyError('around it')\n"
    )
    done = run(wrapped)
    assert (done.returncode, done.stderr) == (1, "error: a: b: found c; allowed: d\n")


def test_error_of_a_data_worker():
    """It arrives as text: the worker's traceback, inside other errors."""
    sent = (
        "import traceback\n"
        "try:\n"
        "    try: raise InputError('a.npy', 'b', 'c', 'd')\n"
        "    except InputError as error: raise RuntimeError('applying transform') from error\n"
        "except RuntimeError: text = traceback.format_exc()\n"
        "raise RuntimeError('Caught RuntimeError in DataLoader worker process 0.\\nOriginal ' + text)\n"
    )
    done = run(sent)
    assert (done.returncode, done.stderr) == (1, "error: a.npy: b: found c; allowed: d\n")


def test_other_errors_keep_their_traceback():
    done = run("1 / 0\n")
    assert done.returncode == 1 and done.stderr.startswith("Traceback") and "ZeroDivisionError" in done.stderr


def test_full_disk_is_told_behind_the_error_it_leads_to(tmp_path):
    """A limit on the size of files simulates a full disk; torch then raises its own error."""
    path = str(tmp_path / "a.pt")
    done = run(
        "import resource, torch\n"
        "from pathlib import Path\n"
        "from custom.atomic_write import write_whole\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        f"write_whole(Path({path!r}), lambda file: torch.save(torch.zeros(10000), file))\n"
    )
    assert (done.returncode, done.stderr) == (1, "error: [Errno 27] File too large\n")
    assert list(tmp_path.iterdir()) == []


def test_unwritable_folder_is_reported():
    wrapped = (
        "try: open('/proc/none/a', 'w')\nexcept OSError as error: raise RuntimeError('while building') from error\n"
    )
    done = run(wrapped)
    assert (done.returncode, done.stderr) == (1, "error: [Errno 2] No such file or directory: '/proc/none/a'\n")


def test_file_error_that_was_handled_hides_no_mistake():
    done = run("try: open('/proc/none/a')\nexcept OSError: {}['key']\n")
    assert done.returncode == 1 and done.stderr.rstrip().endswith("KeyError: 'key'")


def test_what_was_found_is_cut():
    text = str(InputError("a.json", "labels", {"x": "y" * 10**6}, "less"))
    assert len(text) < 2200 and text.startswith("a.json: labels: found {'x': 'yyy") and text.endswith("; allowed: less")
