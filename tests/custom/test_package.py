import os
import shutil
import zipfile

import pytest

from custom import package
from custom.errors import InputError
from custom.version import __version__


@pytest.fixture
def bundle(tmp_path):
    """The repository's bundle with some bytes as weights, and things that do not belong into a release."""
    folder = tmp_path / "bundle"
    shutil.copytree(package.BUNDLE, folder, ignore=shutil.ignore_patterns("models", "eval", "__pycache__"))
    strangers = ("models/last.pt", "eval/cases.csv", "data/private.npy", "docs/__pycache__/a.pyc", "docs/.DS_Store")
    for name in ("models/model.pt", *strangers, "docs/notebooks/.ipynb_checkpoints/segment-checkpoint.ipynb"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"weights")
    return folder


def built(bundle, out):
    package.build(str(out), bundle=str(bundle))
    (path,) = out.iterdir()
    return path


def test_two_builds_on_two_days_are_the_same_bytes(bundle, tmp_path):
    first = built(bundle, tmp_path / "a")
    for path in bundle.rglob("*"):
        os.utime(path, (1e9, 1e9))
        os.chmod(path, 0o700)
    second = built(bundle, tmp_path / "b")
    assert first.name == second.name == f"mcp_medsam_v{__version__}.zip"
    assert first.read_bytes() == second.read_bytes()


def test_holds_the_bundle_and_the_real_package(bundle, tmp_path):
    with zipfile.ZipFile(built(bundle, tmp_path / "out")) as archive:
        names = set(archive.namelist())
        shim = archive.read("mcp_medsam/custom/__init__.py")
    bundle_files = {"LICENSE", "configs/train.json", "docs/README.md", "models/model.pt"}
    code = {"custom/networks/encoders/tiny_vit.py", "custom/py.typed", "data_prep/readers/nifti.py"}
    code |= {"custom/label_app/requirements.txt", "custom/label_app/README.md"}
    assert {f"mcp_medsam/{name}" for name in bundle_files | code} <= names
    assert shim == (package._PACKAGE / "__init__.py").read_bytes()
    unwanted = ("last.pt", "eval/", "/data/private", "__pycache__", ".pyc", ".DS_Store", "checkpoint.ipynb")
    assert not [name for name in names if any(part in name for part in unwanted)]


def test_holds_pages_pictures_and_notebooks_but_not_the_scores_of_every_case(bundle, tmp_path):
    with zipfile.ZipFile(built(bundle, tmp_path / "out")) as archive:
        names = {name.removeprefix("mcp_medsam/") for name in archive.namelist()}
    pages = {f"docs/{path.name}" for path in (bundle / "docs").iterdir() if path.suffix in (".md", ".png", ".svg")}
    notebooks = {f"docs/notebooks/{name}.ipynb" for name in ("segment", "fine_tune")}
    tables = {"docs/results/runs.csv", "docs/results/robustness.csv"}
    assert pages | notebooks | tables | {"docs/data_license.txt"} == {name for name in names if "docs/" in name}


def test_no_release_without_weights_or_version(bundle, tmp_path):
    (bundle / "models" / "model.pt").unlink()
    with pytest.raises(InputError, match=r"models/model\.pt: found no file"):
        package.build(str(tmp_path / "out"), bundle=str(bundle))
    (bundle / "configs" / "metadata.json").write_text('{"version": "../0.1"}')
    with pytest.raises(InputError, match=r"version: found '\.\./0\.1'"):
        package.build(str(tmp_path / "out"), bundle=str(bundle))
    assert not (tmp_path / "out").exists()


def test_file_that_vanishes_meanwhile_is_named(bundle, tmp_path, monkeypatch):
    listed = package._files

    def lose(folder):
        files = list(listed(folder))
        (folder / "configs" / "train.json").unlink()
        return files

    monkeypatch.setattr(package, "_files", lose)
    with pytest.raises(InputError, match=r"configs/train\.json: file: found No such file"):
        package.build(str(tmp_path / "out"), bundle=str(bundle))
    assert list((tmp_path / "out").iterdir()) == []
