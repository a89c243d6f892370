import json
import sys

import numpy as np
import pytest
from PIL import Image

from data_prep import cli


@pytest.fixture
def manifest(tmp_path):
    """Return a function that adds one picture case to a source folder, and the folder."""
    root = tmp_path / "source"

    def add(case, image, label, /, modality="US", raw=None, **fields):
        folder = root / modality
        folder.mkdir(parents=True, exist_ok=True)
        for kind, array in (("image", image), ("label", label)):
            if array is not None:
                Image.fromarray(array).save(folder / f"{case}.{kind}.png")
        entry = {
            "image": f"{case}.image.png",
            "label": f"{case}.label.png",
            "modality": modality,
            "dataset": "Set",
            "split": "train",
            "case": case,
            "labels": {"1": "tumor"},
        } | fields
        with (folder / "manifest.jsonl").open("a") as file:
            file.write((raw or json.dumps(entry)) + "\n")

    root.mkdir()
    return root, add


@pytest.fixture
def square():
    """Return a 32x48 label with one 10x10 square of id 1."""
    label = np.zeros((32, 48), np.uint8)
    label[4:14, 6:16] = 1
    return label


@pytest.fixture
def call(monkeypatch, capsys):
    """Return a function that calls the command line and returns its exit code, output and errors."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["data_prep", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:  # Python prints a text and exits with 1
            code = 1 if isinstance(stop.code, str) else stop.code
            sys.stderr.write(f"{stop.code}\n" if isinstance(stop.code, str) else "")
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def source(tmp_path):
    """Return an empty source folder."""
    folder = tmp_path / "source"
    folder.mkdir()
    return folder
