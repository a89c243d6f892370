"""Every command on a page can be typed as it stands, and those that take seconds are run."""

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from functools import cache
from importlib import import_module
from io import StringIO
from pathlib import Path
from pkgutil import resolve_name

import pytest

from custom.bundle_folder import CONFIGS
from tests.page_commands import commands_of, files_of, is_own, is_there, main_module, problems_of, understood
from tests.pages import PAGES, README, ROOT, blocks, code_spans, tree, with_folders

#: Commands that take seconds; they are run where all they read is in the repository or made by one of them.
QUICK = ("custom.report", "custom.report.sizes", "custom.report.calibration", "custom.report.robustness_figure")
QUICK += ("data_prep demo", "data_prep check", "data_prep show")
#: Files that workflows make in the bundle's folder.
MADE = ("bundle/eval", "bundle/models/")
#: Options that pages name of programs of others.
FOREIGN = {
    "nproc_per_node",
    "use_trace",
    "input_shape",
    "config_file",
    "run_id",
    "app",
    "studies",
    "host",
    "port",
    "conf",
}
FOREIGN |= {"repo", "name", "bundle_dir", "tracking", "help", "version", "no", "index", "dist", "user", "net_id"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_can_be_typed(page, tmp_path):
    assert problems_of(page.read_text("utf-8"), tmp_path / "scratch") == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_training_overwrites_the_shipped_weights(page, tmp_path):
    commands, _ = commands_of(page.read_text("utf-8"), tmp_path / "scratch")
    trainings = [each for each in commands if each.module == "monai.bundle" and "training" in each.arguments]
    assert [str(each) for each in trainings if "--ckpt_dir" not in each.arguments] == []  # else bundle/models


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_option_in_the_text_exists(page):
    spans = " ".join(code_spans(page.read_text("utf-8")))
    named = {name.replace("-", "_") for name in re.findall(r"(?<![\w-])--(\w[\w-]*)", spans)}
    assert sorted(named - known_options() - FOREIGN) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_import_in_a_python_block_exists(page):
    for body in blocks(page.read_text("utf-8"), "python"):
        for node in ast.walk(ast.parse(body)):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("custom", "data_prep"):
                module = import_module(node.module)
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_file_and_name_in_the_text_exists(page):
    missing = []
    for word in " ".join(code_spans(page.read_text("utf-8"))).split():
        if re.fullmatch(r"(custom|data_prep|tests|bundle)/[\w./-]+", word) and not word.startswith(MADE):
            missing += [word] * (word.rstrip("/") not in with_folders(tree()))
        elif re.fullmatch(r"(custom|data_prep)(\.\w+)+", word):
            try:
                resolve_name(word)
            except (ImportError, AttributeError):
                missing.append(word)
    assert missing == []


@cache
def known_options():
    """Return the options of all commands of the project, read from their help, and the keys of the configs."""
    found = {"parts", "scale", "models", "rounds", "slow_rounds"}  # of the programs among the tests
    found |= {key for path in CONFIGS.rglob("*.json") for key in json.loads(path.read_text("utf-8"))}
    files = [path for part in ("custom", "data_prep") for path in (ROOT / part).rglob("*.py")]
    for path in files:
        if path.name != "__init__.py" and 'if __name__ == "__main__":' in path.read_text("utf-8"):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
            usage = help_of(module)
            verbs = re.findall(r"^  ([\w-]+) ", usage.partition("\nverbs:")[2], re.MULTILINE)
            found |= options_in(usage)
            for verb in verbs:
                found |= options_in(help_of(module, verb))
    return found


def options_in(usage):
    return {name.replace("-", "_") for name in re.findall(r"--(\w[\w-]*)", usage)}


def help_of(module, *verb):
    """Return what a command prints with ``--help``."""
    written = StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(written):
        patch.setattr(sys, "argv", [module, *verb, "--help"])
        import_module(main_module(module)).main()
    return written.getvalue()


@pytest.fixture
def check(tmp_path):
    """Return a function from the body of a bash block to its problems."""
    return lambda body: problems_of(f"# Page\n\n```bash\n{body}\n```\n", tmp_path / "scratch")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("python -m custom.segment IMAGE --boxes 1 2 3 4 --modalty US --out DIR", "--modalty: found an unknown option"),
        ("python -m custom.segment IMAGE --boxes 1 2 3 4", "--out: found nothing"),
        ("python -m custom.nothing IMAGE", "no module custom.nothing"),
        ("python -m data_prep nifty --src FOLDER --out data/mine", "verb: found 'nifty'"),
        ("python -m custom.segment scan.nii.gz --boxes 1 2 3 4 --out DIR", "no scan.nii.gz"),
        ("python -m custom.profile --dataset_dir D --epoch 3", "--epoch: found a key that cannot be set here"),
        ("python -m custom.experiments run ablation/none --dataset_dir D --out DIR", "no config ablation/none"),
        ("cd bundle && python -m monai.bundle run --config_file configs/train.json", "block 1 ends in bundle"),
        ("python -m monai.bundle run --config_file configs/train.json", "no config configs/train.json"),
        (
            "python -m monai.bundle run training --config_file bundle/configs/train.json --epoch 3",
            "bundle/configs/train.json has no key epoch",
        ),
        ("python -m monai.bundle training --config_file bundle/configs/train.json", "monai.bundle has no training"),
        ("python -m tests.reliability --out DIR --part fuzz", "tests.reliability has no part"),
        ("python -m monailabel.main start_server --app custom/label_app --conf weights W", "--conf has no weights"),
        ("python -m pytest tests/test_none.py", "no tests/test_none.py"),
        ("python -c 'import'", "invalid syntax"),
        ("for x in a b; do python -m custom.package --out DIR", "syntax error"),
        ("mcp-medsam-score PRED TRUTH --outt scores.csv", "--outt: found an unknown option"),
    ],
)
def test_what_is_wrong_is_found(check, body, problem):
    assert problem in "\n".join(check(body))


@pytest.mark.parametrize(
    "body",
    [
        "python -m custom.segment VOLUME.nii.gz --boxes '1 2 3 4; 5 6 7 8' --slice 3 --out results  # a comment",
        "python -m data_prep demo\npython -m data_prep check data/demo",
        "python -m data_prep images --src FOLDER --out data/mine --modality US && python -m data_prep show data/mine "
        "--out sheet.png",
        "(cd bundle && python -m monai.bundle run training --config_file configs/train.json --dataset_dir ../data/demo "
        "--dataset_dir=D --lr_scheduler#every 1 --checkpoint models/model.pt --ckpt_dir ../runs/a)\n"
        "python -m custom.segment IMAGE --boxes 1 2 3 4 --out DIR --checkpoint runs/a/model.pt",
        "X='--epochs 2 --clip none'\npython -m custom.experiments run \"ablation/*\" --dataset_dir D --out runs/b $X",
        "f() { python -m custom.package --out $1; }\nf DIR",
        "R=bundle/docs/results\npython -m custom.report a=$R/shipped b=$R/lite_medsam --reference a --out report",
        "python3 -m venv .label && .label/bin/pip install -r custom/label_app/requirements.txt",
        "python -c \"print('data/a.png')\" && python -m custom.segment data/a.png --boxes 1 2 3 4 --out DIR",
        "curl -X POST http://127.0.0.1:8000/infer -F 'params={}' -o mask.nii.gz && curl -F label=@mask.nii.gz URL",
        "cd bundle && torchrun --nproc_per_node 2 -m monai.bundle run --config_file configs/train.json && cd ..",
        "python -m pytest -n 0 tests/test_docs.py::test_told_is_rare",
    ],
)
def test_what_is_right_passes(check, body):
    found = check(body)
    assert [problem for problem in found if "data/demo" not in problem] == []


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the repository, in which commands may write."""
    root = tmp_path_factory.mktemp("copy")
    for name in tree():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, root / name)
    return root


def start(command, folder):
    """Run a command of a page: a report in this process, which has imported what it needs, others as they stand."""
    if command.module.startswith("custom."):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setattr(sys, "argv", [command.module, *command.arguments])
            import_module(main_module(command.module)).main()
        return
    done = subprocess.run([sys.executable, *command.words[1:]], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr[-2000:]}"


def uses_own_files(command):
    """Whether a command reads or writes what stands in capitals on the page."""
    made, read = files_of(command, understood(command))
    return any(map(is_own, [*made, *read]))


def test_quick_commands_run(copy, tmp_path):
    done = set()
    for number, page in enumerate(filter(Path.is_file, PAGES)):
        made = []
        for command in commands_of(page.read_text("utf-8"), tmp_path / str(number))[0]:
            verb = " ".join([command.module or "", *command.arguments[:1]])
            if command.module not in QUICK and verb not in QUICK:
                continue
            results, needed = files_of(command, understood(command))
            if uses_own_files(command) or command.folder != "." or not all(is_there(path, made) for path in needed):
                continue
            made += results
            if command.words not in done:
                start(command, copy)
                assert all((copy / path).exists() for path in results), command
                done.add(command.words)
    assert done


@pytest.mark.slow
def test_readme_runs_as_it_stands(copy, tmp_path):
    """All blocks of the README but those with a user's own files, and the tests themselves."""
    text = README.read_text("utf-8")
    commands, _ = commands_of(text, tmp_path / "scratch")
    functions = (
        f'python() {{ {shlex.quote(sys.executable)} "$@"; }}; python3() {{ :; }}; pip() {{ :; }}; source() {{ :; }}'
    )
    started = 0
    for number, body in enumerate(blocks(text, "bash"), start=1):
        block = [command for command in commands if command.block == number]
        if any(uses_own_files(command) or command.module == "pytest" for command in block):
            continue
        script = f"set -e; {functions}\n{body}"
        done = subprocess.run(["bash", "-c", script], cwd=copy, capture_output=True, text=True, timeout=3600)
        assert done.returncode == 0, f"{body}\n{done.stderr[-2000:]}"
        started += 1
    assert started
