"""``pip install .`` as its users meet it: the package under its own name, without the repository."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image
from skimage import data, io

from custom import package
from tests.pages import links

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    options = ["--quiet", "--no-deps", "--disable-pip-version-check", "--target", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "install", str(ROOT), *options], check=True)
    return folder


def run(installed, folder, *arguments):
    environment = os.environ | {"PYTHONPATH": str(installed)}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def test_no_name_of_the_repository_is_left(installed):
    assert {path.name for path in installed.iterdir() if "dist-info" not in path.name} == {"mcp_medsam", "bin"}
    for path in (installed / "mcp_medsam").rglob("*"):
        if path.suffix in (".py", ".json", ".ipynb"):
            text = path.read_text()
            assert "import custom" not in text and "from custom" not in text and '"custom.' not in text, path
            assert "import data_prep" not in text and "from data_prep" not in text, path
    assert (installed / "mcp_medsam" / "py.typed").is_file()


def test_pages_and_configs_are_those_of_the_release(installed):
    bundle = installed / "mcp_medsam" / "bundle"
    mine = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    released = {name for _, name in package._files(package.BUNDLE)}
    assert mine == {name for name in released if not name.startswith(("custom/", "data_prep/"))}
    assert (installed / "mcp_medsam" / "label_app" / "README.md").is_file()


def test_links_between_pages_lead_to_files(installed):
    docs = installed / "mcp_medsam" / "bundle" / "docs"
    texts = {page: page.read_text("utf-8") for page in docs.glob("*.md")}
    for path in (docs / "notebooks").glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        texts[path] = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    found = [(page, target.partition("#")[0]) for page, text in texts.items() for target in links(text)]
    assert found and [(page, target) for page, target in found if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("name", ["segment", "fine_tune"])
def test_notebooks_import_the_installed_package(installed, tmp_path, name):
    notebook = nbformat.read(installed / "mcp_medsam" / "bundle" / "docs" / "notebooks" / f"{name}.ipynb", as_version=4)
    start = [cell.source for cell in notebook.cells if cell.cell_type == "code"][:2]
    check = "import sys\nassert 'mcp_medsam.inference.predictor' in sys.modules and 'custom' not in sys.modules"
    done = run(installed, tmp_path, "-c", "\n".join([*start, check]))
    assert done.returncode == 0, done.stderr


def test_segment(installed, tmp_path):
    io.imsave(tmp_path / "eye.png", data.retina()[300:900:2, 100:1000:2])
    code = """
import sys
from mcp_medsam import segment, version
sys.argv = ["segment", "eye.png", "--boxes", "[[20,130,90,230]]", "--modality", "fundus", "--out", "out"]
sys.argv += ["--checkpoint", "lite_medsam", "--clip", "none"]
segment.main()
assert version.__version__ and "custom" not in sys.modules and "data_prep" not in sys.modules
"""
    done = run(installed, tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr
    assert np.asarray(Image.open(tmp_path / "out" / "eye_mask.png")).max() == 1  # a palette: its indices are the ids


@pytest.mark.slow
def test_train_from_elsewhere(installed, prepared_demo, tmp_path):
    code = f"""
from monai.bundle import ConfigParser
from mcp_medsam.bundle_folder import CONFIGS
from mcp_medsam.data_prep.cli import Commands
Commands().check({str(prepared_demo.root)!r})
parser = ConfigParser()
parser.read_config(CONFIGS / "train.json")
parser.update({{"dataset_dir": {str(prepared_demo.root)!r}, "clip": "none", "output_dir": "out", "ckpt_dir": "ckpt"}})
print(type(parser.get_parsed_content("train#dataset")[0]["crop"]), type(parser.get_parsed_content("network")))
"""
    done = run(installed, tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr
    assert "mcp_medsam.networks.mcp_medsam.MCPMedSAM" in done.stdout
