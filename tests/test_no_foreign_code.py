"""No file that is read may run code: the syntax of the whole tree is searched for calls that could run it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(path for part in ("custom", "data_prep", "bundle/custom") for path in (ROOT / part).rglob("*.py"))
FILES.append(ROOT / "setup.py")

MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "imp", "code"}
CALLS = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput"),
    *("torch.jit.load", "torch.hub.load", "torch.package.PackageImporter", "numpy.fromfile", "pandas.read_pickle"),
    *("shutil.unpack_archive", "nibabel.load", "monai.bundle.load", "runpy.run_path", "runpy.run_module"),
    *("tempfile.mktemp", "pydicom.dcmread", "pydicom.read_file", "PIL.Image.open", "tifffile.imread"),
}
METHODS = {"extractall", "extract", "read_pickle"}
#: The only place where each of these calls is allowed, after its checks.
PLACES = {"pydicom.dcmread": "custom/images/dicom_files.py", "PIL.Image.open": "custom/images/formats/pictures.py"}
#: Call -> the keyword that must be there, and its value.
REQUIRED = {
    "torch.load": ("weights_only", True),
    "timm.models.load_state_dict": ("weights_only", True),
    "numpy.load": ("allow_pickle", False),
    "numpy.save": ("allow_pickle", False),
    "numpy.lib.format.read_array": ("allow_pickle", False),
}


def problems(source):
    """Return one line for each call or import in Python source that could run what it reads."""
    tree, names, found = ast.parse(source), {}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
                found += [f"{node.lineno}: import {alias.name}"] * (alias.name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
            found += [f"{node.lineno}: from {node.module}"] * ((node.module or "").partition(".")[0] in MODULES)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func, names)
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        if name in CALLS or (isinstance(node.func, ast.Attribute) and node.func.attr in METHODS):
            found.append(f"{node.lineno}: {name or node.func.attr}")
        if name in REQUIRED:
            keyword, value = REQUIRED[name]
            given = keywords.get(keyword)
            if not (isinstance(given, ast.Constant) and given.value is value):
                found.append(f"{node.lineno}: {name} without {keyword}={value}")
        shell = keywords.get("shell")
        if shell is not None and not (isinstance(shell, ast.Constant) and shell.value is False):
            found.append(f"{node.lineno}: shell")
        if "trust_remote_code" in keywords:
            found.append(f"{node.lineno}: trust_remote_code")
    return found


def dotted(node, names):
    """Return the full name of what is called, or None: ``np.load`` becomes ``numpy.load``."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        owner = dotted(node.value, names)
        return None if owner is None else f"{owner}.{node.attr}"
    return None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_call_runs_what_it_reads(path):
    place = path.relative_to(ROOT).as_posix()
    found = problems(path.read_text(encoding="utf-8"))
    assert [line for line in found if PLACES.get(line.partition(": ")[2]) != place] == []


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.load(f)",
        "import torch\ntorch.load(f, weights_only=False)",
        "from torch import load as read\nread(f, weights_only=flag)",
        "import numpy as np\nnp.load(f)",
        "import numpy\nnumpy.load(f, allow_pickle=True)",
        "import numpy as np\nnp.save(f, a)",
        "from numpy.lib import format as npy\nnpy.read_array(f)",
        "import pickle",
        "from yaml import load",
        "eval('1')",
        "exec(text)",
        "import subprocess\nsubprocess.run(text, shell=True)",
        "import os\nos.system(text)",
        "from timm.models import load_state_dict\nload_state_dict(f)",
        "archive.extractall(folder)",
        "AutoModel.from_pretrained(f, trust_remote_code=True)",
        "from PIL import Image\nImage.open(f)",
        "import nibabel as nib\nnib.load(f)",
        "import torch\ntorch.jit.load(f)",
    ],
)
def test_every_such_call_is_found(source):
    assert len(problems(source)) == 1


def test_harmless_calls_are_not():
    assert not problems(
        "import numpy as np, torch, subprocess, re\n"
        "network.eval()\nnp.load(f, allow_pickle=False)\ntorch.load(f, weights_only=True)\n"
        "subprocess.run([a, b], shell=False)\nre.compile(x)\nparser.load(f)"
    )


def test_the_tree_is_searched():
    names = {path.relative_to(ROOT).as_posix() for path in FILES}
    assert {"custom/checkpoints/loading.py", "data_prep/readers/npz.py", "custom/label_app/main.py", "setup.py"} < names
