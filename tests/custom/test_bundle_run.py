import json
import sys

import pytest

from custom import bundle_run
from custom.bundle_folder import BUNDLE, CONFIGS
from custom.bundle_run import BundleError, read_config, run_bundle

PROGRAM = """
import json, sys
print("one line", flush=True)
print(json.dumps(sys.argv[1:]), file=sys.stderr)
sys.exit("error: no room" if "--fail" in sys.argv else 0)
"""


@pytest.fixture(autouse=True)
def program(tmp_path, monkeypatch):
    """Put a program in the place of ``python -m monai.bundle run``."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    monkeypatch.setattr(bundle_run, "COMMAND", (sys.executable, str(path)))


def test_everything_goes_to_the_log(tmp_path, capfd):
    log = tmp_path / "new" / "train.log"
    for _ in range(2):
        run_bundle("training", ["a.json", tmp_path / "b.json"], {"epochs": 3, "optimizer#lr": 1e-4}, log=log)
    lines = log.read_text().splitlines()
    assert len(lines) == 8 and lines[1].startswith("# 20") and lines[1].endswith("--epochs 3 --optimizer#lr 0.0001")
    configs = f"['a.json', '{tmp_path}/b.json']"
    assert json.loads(lines[3]) == ["training", "--config_file", configs, "--epochs", "3", "--optimizer#lr", "0.0001"]
    assert capfd.readouterr() == ("", "")


def test_without_a_log_it_prints_here(capfd):
    run_bundle("evaluating", ["a.json"], {})
    printed, errors = capfd.readouterr()
    assert printed.splitlines()[-1] == "one line" and json.loads(errors) == [
        "evaluating",
        "--config_file",
        "['a.json']",
    ]


def test_errors(tmp_path):
    log = tmp_path / "eval.log"
    with pytest.raises(BundleError) as error:
        run_bundle("evaluating", ["a.json"], {"fail": 1}, log=log)
    assert str(error.value) == f"evaluating ended with code 1: error: no room ({log})"
    with pytest.raises(BundleError, match="^evaluating ended with code 1$"):
        run_bundle("evaluating", ["a.json"], {"fail": 1})


def test_configuration_in_this_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = read_config([CONFIGS / "train.json", CONFIGS / "recipes" / "light.json"], {"lr_scheduler#every": 7})
    assert (config["lr_scheduler#every"], config["lr_scheduler#factor"], config["epochs"]) == (7, 0.8, 12)
    assert config.get_parsed_content("dataset_dir") == str(BUNDLE.parent / "data" / "real")
