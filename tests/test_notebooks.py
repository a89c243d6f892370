"""The notebooks: small, whole, without traces of a machine, and ready to run wherever they travel."""

import json
import re
import shutil
import zipfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from custom import package

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "bundle" / "docs" / "notebooks"
NAMES = ("fine_tune", "segment")
LARGEST = 300_000  # bytes
ABSOLUTE = re.compile(r"""(?<![\w.:/)\]])/\w[\w.-]*/|\b[A-Z]:\\|~/""")


def read(path):
    return nbformat.read(path, as_version=4)


def texts(notebook):
    """Yield what is written in cells and outputs; pictures are none."""
    for cell in notebook.cells:
        yield cell.source
        for output in cell.get("outputs", []):
            yield from (value for kind, value in output.get("data", {}).items() if not kind.startswith("image/"))
            yield output.get("text", "")


def pictures(notebook):
    """Return the media types of all pictures."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    kinds = [kind for cell in code for output in cell.outputs for kind in output.get("data", {})]
    return {kind for kind in kinds if kind.startswith("image/")}


def test_there_are_these():
    assert sorted(path.name for path in FOLDER.glob("*.ipynb")) == [f"{name}.ipynb" for name in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_is_valid_and_small(name):
    path = FOLDER / f"{name}.ipynb"
    nbformat.validate(read(path))
    assert path.stat().st_size < LARGEST


@pytest.mark.parametrize("name", NAMES)
def test_was_executed_from_top_to_bottom_without_errors(name):
    notebook = read(FOLDER / f"{name}.ipynb")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert pictures(notebook) == {"image/png"}


@pytest.mark.parametrize("name", NAMES)
def test_has_no_absolute_path(name):
    assert [found[0] for text in texts(read(FOLDER / f"{name}.ipynb")) for found in ABSOLUTE.finditer(text)] == []


@pytest.mark.parametrize("text", ["'/home/me/a.png'", "see /tmp/x/y", r"C:\data", "~/data"])
def test_an_absolute_path_is_found(text):
    assert ABSOLUTE.search(text)


@pytest.mark.parametrize("text", ["bundle/docs/a.md", "https://a.org/b/c", "1/2", 'place / "custom"', "[a](../b/c.md)"])
def test_what_is_no_absolute_path_passes(text):
    assert not ABSOLUTE.search(text)


@pytest.fixture
def release(tmp_path):
    """The unpacked release."""
    package.build(str(tmp_path))
    with zipfile.ZipFile(next(tmp_path.glob("*.zip"))) as archive:
        archive.extractall(tmp_path)
    return tmp_path / package.NAME


@pytest.fixture
def repository(tmp_path):
    """A copy of the repository, in which notebooks may write."""
    for part in ("custom", "data_prep", "bundle"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__", "eval"))
    return tmp_path


def execute(path, place):
    """Run a notebook as Jupyter does in a folder; an error in a cell is raised."""
    resources = {"metadata": {"path": str(place)}}
    NotebookClient(read(path), timeout=None, kernel_name="python3", resources=resources).execute()


@pytest.mark.slow
def test_segment_runs_from_the_root_of_the_repository(repository):
    execute(repository / "bundle" / "docs" / "notebooks" / "segment.ipynb", repository)
    written = {path.name for path in (repository / "results" / "notebooks").iterdir()}
    assert {"retina_mask.png", "head_mask.nii.gz", "abdomen_mask.nii.gz", "abdomen.json"} <= written
    report = json.loads((repository / "results" / "notebooks" / "abdomen.json").read_text())
    assert min(box["iou"] for box in report["boxes"]) > 0.7


@pytest.mark.slow
def test_fine_tune_runs_from_its_folder_in_the_release(release):
    folder = release / "docs" / "notebooks"
    execute(folder / "fine_tune.ipynb", folder)
    runs = release / "runs" / "notebooks"
    before, after = (json.loads((runs / name / "summary.json").read_text())["mean"] for name in ("shipped", "trained"))
    assert after["dsc"] > before["dsc"] + 10
    assert {path.name for path in folder.iterdir()} == {f"{name}.ipynb" for name in NAMES}  # results lie elsewhere
