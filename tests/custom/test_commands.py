"""Every command of the project starts in the same way."""

import importlib
import inspect
import pkgutil
import re
import sys
from pathlib import Path

import pytest

from custom.version import __version__

ROOT = Path(__file__).parents[2]
#: Module with a main() -> the function called, and the arguments it needs before it checks further keys.
COMMANDS = {
    "custom.experiments run": ("custom.experiments:run", ["ablation/proposed", "--dataset_dir", "D", "--out", "out"]),
    "custom.export.__main__": ("custom.export.__main__:export", []),
    "custom.checkpoints.half_precision": ("custom.checkpoints.half_precision:store", []),
    "custom.checkpoints.interpolate": ("custom.checkpoints.interpolate:store", []),
    "custom.checkpoints.modality_rows": ("custom.checkpoints.modality_rows:grow_checkpoint", []),
    "custom.package": ("custom.package:build", []),
    "custom.profile": ("custom.profile:profile", ["D"]),
    "custom.report.__main__": ("custom.report.__main__:report", []),
    "custom.report.calibration": ("custom.report.calibration:calibration", []),
    "custom.report.clicks": ("custom.report.clicks:clicks", []),
    "custom.report.robustness": ("custom.report.robustness:robustness", ["a.pt", "--dataset_dir", "D"]),
    "custom.report.robustness_figure": ("custom.report.robustness_figure:redraw", []),
    "custom.report.sizes": ("custom.report.sizes:sizes", []),
    "custom.report.volumes": ("custom.report.volumes:volumes", []),
    "custom.score": ("custom.score:score", []),
    "custom.segment": ("custom.segment:segment", []),
    **{
        f"data_prep.cli {verb}": (f"data_prep.cli:Commands.{verb}", [])
        for verb in "demo manifest npz nifti dicom images coco check show clip_features speed".split()
    },
}


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Return a function that runs a command and returns its code, output and errors; it must write no file."""

    def start(command, *arguments):
        module, *verb = command.split()
        monkeypatch.setattr(sys, "argv", [module, *verb, *arguments])
        monkeypatch.chdir(tmp_path)
        try:
            importlib.import_module(module).main()
            code, line = 0, ""
        except SystemExit as stop:
            code, line = 1, f"{stop.code}\n"
        assert not list(tmp_path.iterdir())
        captured = capsys.readouterr()
        return code, captured.out, captured.err + line

    return start


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_whole(call, command):
    code, printed, error = call(command, "--help")
    assert (code, error) == (0, "") and printed.startswith("usage: python -m ")
    words = " ".join(printed.split())
    function = pkgutil.resolve_name(COMMANDS[command][0])
    about, _, rest = inspect.getdoc(function).replace("``", "").partition("Args:\n")
    for line in (about + rest.partition("\n\n")[0]).splitlines():
        assert re.sub(r"^ {4}\w+:", "", line).strip() in words
    for name, parameter in inspect.signature(function).parameters.items():
        assert (
            name == "self"
            or parameter.kind is parameter.VAR_KEYWORD
            or re.search(f"  (--{name} |{name.upper()})", printed)
        )
    assert max(map(len, printed.splitlines())) <= 100


@pytest.mark.parametrize("command", COMMANDS)
def test_version(call, command):
    assert call(command, "--version") == (0, f"mcp-medsam-monai {__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_is_one_line(call, command):
    code, printed, error = call(command, *COMMANDS[command][1], "--mistyped", "US")
    assert (code, printed, error.count("\n")) == (1, "", 1)
    assert error.startswith("error: arguments: --mistyped: found a") and "; allowed: " in error


@pytest.mark.parametrize(("command", "verb"), [("custom.experiments", "run"), ("data_prep.cli", "nifti")])
def test_help_lists_the_verbs(call, command, verb):
    code, printed, error = call(command, "--help")
    assert (code, error) == (0, "") and f"\n  {verb} " in printed
    assert call(command)[0] == 1


def test_every_command_is_in_the_list():
    ends = 'if __name__ == "__main__":'
    files = [path for folder in ("custom", "data_prep") for path in (ROOT / folder).rglob("*.py")]
    found = {path for path in files if ends in path.read_text(encoding="utf-8")}
    listed = {ROOT / f"{command.split()[0].replace('.', '/')}.py" for command in COMMANDS}
    assert found == listed - {ROOT / "data_prep" / "cli.py"} | {ROOT / "data_prep" / "__main__.py"}
