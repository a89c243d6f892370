import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from custom.command_line import check_keys, leave_on_sigterm, run
from custom.errors import InputError
from custom.version import __version__

ROOT = Path(__file__).parents[2]
STOPPED = "stopped; the same command carries on from here\n"
HELP = "python -m cut --help"


def cut(
    image: str,
    *,
    out: str,
    boxes: list | None = None,
    modality: str | None = None,
    share: float = 0.5,
    separate: bool = False,
    follow: bool = True,
) -> None:
    """Cut an image into ``pieces``.

    It reads one
    image:

        python -m cut a.png --out b

    Args:
        image: the picture; a file named 2024 will do. It is the first sentence of two, and long enough to be wrapped.
        out: folder, e.g. ``pieces``, for the results.
        boxes: one box or several.
        modality: one of the eleven.
        share: a number.
        follow: True or False.

    Raises:
        InputError: never.
    """
    given = {"boxes": boxes, "modality": modality, "share": share, "separate": separate, "follow": follow}
    print(json.dumps([image, out, {name: value for name, value in given.items() if value != DEFAULTS[name]}]))


DEFAULTS = {"boxes": None, "modality": None, "share": 0.5, "separate": False, "follow": True}


def several(*runs: str, out: str = "report", **keys: object) -> None:
    """Compare runs."""
    print(json.dumps([runs, out, keys]))


def shared(*, workers: int = 2, ct_window: str = "bone") -> None:
    """Check what verbs share.

    Args:
        workers: processes.
        ct_window: a window.
    """


class Verbs:
    """Prepare data."""

    def nifti(self, *, src: str, **options: object) -> None:
        """Prepare volumes.

        Args:
            src: the folder.
        """
        print(json.dumps([src, options]))

    def clip_features(self, dataset_dir: str) -> None:
        """Compute features."""
        print(dataset_dir)

    def _hidden(self) -> None: ...


@pytest.fixture
def call(monkeypatch, capsys):
    """Return a function that runs a command line and returns its code, its output and its errors."""

    def start(commands, *arguments, **options):
        monkeypatch.setattr(sys, "argv", ["x", *arguments])
        code = 0
        try:
            run(commands, name="python -m cut", **options)
        except SystemExit as stop:
            assert isinstance(stop.code, str)
            code = 1
            sys.stderr.write(f"{stop.code}\n")
        return code, *capsys.readouterr()

    return start


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["a.png", "--out", "b"], ["a.png", "b", {}]),
        (["--out=b=c", "--image", "a.png"], ["a.png", "b=c", {}]),
        (["2024", "--out", "a b"], [2024, "a b", {}]),
        (["a.png", "--out", "b", "--boxes", "20", "34", "70", "75"], ["a.png", "b", {"boxes": [20, 34, 70, 75]}]),
        (
            ["--boxes", "-2.5", "+1e1", ".5", "-7", "a.png", "--out", "b"],
            ["a.png", "b", {"boxes": [-2.5, 10, 0.5, -7]}],
        ),
        (["a.png", "--out", "b", "--boxes", "[[1, 2], [3, 4]]"], ["a.png", "b", {"boxes": [[1, 2], [3, 4]]}]),
        (["a.png", "--out", "b", "--boxes", "20 34 70 75"], ["a.png", "b", {"boxes": "20 34 70 75"}]),
        (["a.png", "--out", "b", "--boxes", "20 34 70 75; 1 2 3 4"], ["a.png", "b", {"boxes": "20 34 70 75; 1 2 3 4"}]),
        (["a.png", "--out", "b", "--boxes", "5,6,7,8"], ["a.png", "b", {"boxes": [5, 6, 7, 8]}]),
        (["--out", "b", "--share", "0.25", "2024"], [2024, "b", {"share": 0.25}]),
        (["a.png", "--separate", "--out", "b"], ["a.png", "b", {"separate": True}]),
        (["a.png", "--out", "b", "--separate"], ["a.png", "b", {"separate": True}]),
        (
            ["a.png", "--out", "b", "--follow", "false", "--separate=TRUE"],
            ["a.png", "b", {"separate": True, "follow": False}],
        ),
        (["a.png", "--out", "b", "--modality", "-600,1500"], ["a.png", "b", {"modality": [-600, 1500]}]),
        (["a.png", "--out", "b", "--modality=--x"], ["a.png", "b", {"modality": "--x"}]),
        (["-3", "--out", ""], [-3, "", {}]),
    ],
)
def test_arguments_of_a_function(call, arguments, expected):
    code, printed, error = call(cut, *arguments)
    assert (code, json.loads(printed), error) == (0, expected, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], f"image: found nothing; allowed: the picture (see {HELP})"),
        (["a.png"], f"--out: found nothing; allowed: folder, e.g. pieces, for the results (see {HELP})"),
        (["a.png", "--out"], f"--out: found nothing; allowed: folder, e.g. pieces, for the results (see {HELP})"),
        (["--modality", "--out", "b"], f"--modality: found nothing; allowed: one of the eleven (see {HELP})"),
        (
            ["--modalty", "US"],
            f"--modalty: found an unknown option; allowed: --modality (nearest), or those listed by {HELP}",
        ),
        (
            ["--nofollow"],
            f"--nofollow: found an unknown option; allowed: --follow (nearest), or those listed by {HELP}",
        ),
        (["-o", "b"], f"-o: found an unknown option; allowed: those listed by {HELP}"),
        (["-out", "b"], f"-out: found an unknown option; allowed: --out (nearest), or those listed by {HELP}"),
        (["--"], f"--: found an unknown option; allowed: those listed by {HELP}"),
        (["-"], f"-: found an unknown option; allowed: those listed by {HELP}"),
        (["a.png", "b.png", "--out", "c"], f"'b.png': found one argument too many; allowed: at most 1, see {HELP}"),
        (
            ["--image", "a.png", "b.png", "--out", "c"],
            f"'b.png': found one argument too many; allowed: at most 1, see {HELP}",
        ),
        (["a.png", "--out", "b", "--out=c"], "--out: found the option twice; allowed: once"),
        (["--separate", "a.png", "--out", "b"], "--separate: found 'a.png'; allowed: True, False"),
        (["a.png", "--out", "b", "--follow", "no"], "--follow: found 'no'; allowed: True, False"),
    ],
)
def test_bad_arguments_start_nothing(call, arguments, message):
    assert call(cut, *arguments) == (1, "", f"error: arguments: {message}\n")


def test_any_number_of_arguments_and_keys(call):
    code, printed, _ = call(
        several, "a", "b=1,2", "--train#trainer#amp", "False", "--epochs=3", "--lr", "1", "2", "--ema"
    )
    assert code == 0
    assert json.loads(printed) == [
        ["a", "b=1,2"],
        "report",
        {"train#trainer#amp": False, "epochs": 3, "lr": [1, 2], "ema": True},
    ]


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["a.png", "--mistyped", "--help"], ["--", "--help"]])
def test_help(call, monkeypatch, arguments):
    monkeypatch.setenv("COLUMNS", "80")
    assert call(cut, *arguments) == (
        0,
        """\
usage: python -m cut IMAGE --out VALUE [options]

Cut an image into pieces.

It reads one image:

    python -m cut a.png --out b

arguments, each also as --name VALUE:
  IMAGE                     the picture; a file named 2024 will do. It is the
                            first sentence of two, and long enough to be
                            wrapped.

options:
  --out VALUE               folder, e.g. pieces, for the results. (required)
  --boxes VALUE             one box or several.
  --modality VALUE          one of the eleven.
  --share VALUE             a number. (default: 0.5)
  --separate True|False     (default: False)
  --follow True|False       True or False. (default: True)
  -h, --help                Show this help.
  --version                 Show the version.
""",
        "",
    )


@pytest.mark.parametrize(("terminal", "longest"), [("30", 40), ("70", 70), ("300", 100)])
def test_help_fits_the_terminal(call, monkeypatch, terminal, longest):
    monkeypatch.setenv("COLUMNS", terminal)
    lines = call(cut, "--help")[1].splitlines()
    assert longest - 15 < max(map(len, lines)) <= longest


@pytest.mark.parametrize("arguments", [["--version"], ["nifti", "--version"], ["--help", "--version"]])
def test_version(call, arguments):
    assert call(Verbs(), *arguments) == (0, f"mcp-medsam-monai {__version__}\n", "")


def test_verbs(call):
    assert call(Verbs(), "nifti", "--src", "a", "--ct-window=lung", options=shared) == (
        0,
        '["a", {"ct_window": "lung"}]\n',
        "",
    )
    assert call(Verbs(), "clip-features", "D") == call(Verbs(), "clip_features", "D") == (0, "D\n", "")
    verbs = "nifti, clip-features"
    for arguments, found in (
        ([], f"nothing; allowed: {verbs}, or"),
        (["nfti"], f"'nfti'; allowed: {verbs} (nearest: nifti), or"),
        (["_hidden"], f"'_hidden'; allowed: {verbs}, or"),
        (["--src", "a"], f"'--src'; allowed: {verbs}, or"),
    ):
        assert call(Verbs(), *arguments) == (1, "", f"error: arguments: verb: found {found} see {HELP}\n")
    for typed, nearest in (("--scr", "--src"), ("--worker", "--workers")):
        error = call(Verbs(), "nifti", typed, "a", options=shared)[2]
        assert f"{typed}: found an unknown option; allowed: {nearest} (nearest), or" in error
    assert "see python -m cut nifti --help" in call(Verbs(), "nifti", options=shared)[2]


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["unknown", "--help"]])
def test_help_lists_the_verbs(call, arguments):
    code, printed, _ = call(Verbs(), *arguments, options=shared)
    assert code == 0 and printed.startswith("usage: python -m cut VERB ...\n\nPrepare data.\n\nverbs:\n")
    assert "  nifti                     Prepare volumes.\n" in printed and "  clip-features " in printed
    assert "hidden" not in printed


@pytest.mark.parametrize("arguments", [["nifti", "--help"], ["--help", "nifti"]])
def test_help_of_a_verb(call, arguments):
    code, printed, _ = call(Verbs(), *arguments, options=shared)
    assert code == 0 and printed.startswith("usage: python -m cut nifti --src VALUE [options]\n\nPrepare volumes.\n")
    assert "  --src VALUE               the folder. (required)\n" in printed
    assert "  --workers VALUE           processes. (default: 2)\n" in printed
    assert "  --ct_window VALUE         a window. (default: bone)\n" in printed


def test_keys_of_a_configuration():
    check_keys(["epochs", "train#trainer#amp"], {"epochs": 1, "train": {}})
    with pytest.raises(InputError, match="--epoch: found a key that cannot be set here; allowed: epochs$"):
        check_keys(["epoch"], ["epochs", "train"])
    with pytest.raises(InputError, match="allowed: the keys of configs/train.json$"):
        check_keys(["x"], ["epochs"])


def end(body, folder):
    code = f"""
import os, signal, sys, time
from pathlib import Path
from custom.command_line import leave_on_sigterm, run
from custom.errors import InputError
from custom.atomic_write import write_whole
def stop(number):
    write_whole(Path({str(folder)!r}) / "a", lambda file: (os.kill(os.getpid(), number), time.sleep(60)))
def command():
    {body}
"""
    start = "" if body.startswith("leave") else "run(command, name='x', errors=(KeyError,))"
    code += start or "command()"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("body", "code", "line"),
    [
        ("stop(signal.SIGTERM)", 143, STOPPED),
        ("stop(signal.SIGINT)", 130, STOPPED),
        ("raise InputError('a', 'b', 'c', 'd')", 1, "error: a: b: found c; allowed: d\n"),
        ("raise OSError(28, 'No space left', 'x')", 1, "error: [Errno 28] No space left: 'x'\n"),
        ("raise type('Others', (KeyError,), {'__str__': lambda _: 'two\\nlines'})()", 1, "error: two lines\n"),
        ("sys.exit(3)", 3, ""),
        ("leave_on_sigterm(); stop(signal.SIGTERM)", 143, ""),
    ],
)
def test_ends_with_one_line_and_nothing_half_written(tmp_path, body, code, line):
    done = end(body, tmp_path)
    assert (done.returncode, done.stderr, list(tmp_path.iterdir())) == (code, line, [])


def test_a_mistake_of_the_program_keeps_its_traceback(tmp_path):
    done = end("1 / 0", tmp_path)
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr and done.stderr.startswith("Traceback")


def test_text_that_the_terminal_cannot_show(tmp_path):
    done = end("print('\\udcff')", tmp_path)
    assert (done.returncode, done.stdout) == (0, "\\udcff\n")


def test_the_handler_is_put_back(call):
    before = signal.getsignal(signal.SIGTERM)
    inside = []

    def command() -> None:
        inside.append(signal.getsignal(signal.SIGTERM))

    assert call(command)[0] == 0
    assert inside != [before] and signal.getsignal(signal.SIGTERM) is before


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
