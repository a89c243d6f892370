"""What the commands on a page mean: bash reads the blocks, and each command's own checks read its words.

Nothing is run: bash gets a handler in place of every program, which writes down the words it was called with. So
variables, functions, ``cd`` and quotes mean what they mean in a terminal.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import monai.bundle
from monai.bundle import ConfigParser

from custom import command_line
from custom.bundle_folder import CONFIGS
from custom.errors import InputError
from custom.label_app.conf import Conf
from tests.pages import ROOT, blocks, tree, with_folders

_RECORDER = r"""
PATH=/nowhere
command_not_found_handle() { printf '%s\0' "$PWD" "$@" $'\x1e' >> "$RECORD"; printf CAPTURED; }
cd() { [ -d "$1" ] || /bin/mkdir -p "$1"; builtin cd "$1"; }
source() { :; }
for block in "$@"; do
    builtin source "$block"
    printf '%s\0' "$PWD" "#end" $'\x1e' >> "$RECORD"
    builtin cd "$ROOT"
done
"""
_OWN_PYTHON = re.compile(r"(?<!\S)[\w./-]*/bin/(?=(?:python|pip)\b)")  # of an environment of its own
_SCRIPT = re.compile(r'^(mcp-medsam-\w+) = "mcp_medsam\.([\w.]+):main"', re.MULTILINE)
_SUFFIX = re.compile(
    r"\.(png|jpe?g|tiff?|nii(\.gz)?|hdr|nrrd|mha|mgz|npz|dcm|csv|tsv|jsonl?|pt|pth|zip|md|py|txt|xml|ipynb)$"
)
#: Options that name what a command makes, those that name what it reads, and those whose value is no file.
_MADE = {"out", "output_dir", "ckpt_dir", "bundle_dir", "embedding_cache"} | {"-o", "--output", "--output-dir"}
_READ = {"image", "pred", "truth", "src", "dataset_dir", "checkpoint", "model", "bundle"}
_NO_FILE = {
    "clip",
    "encoder_weights",
    "repo",
    "url",
    "name",
    "names",
    "patient_pattern",
    "modality",
    "config_file",
    "inherits_from",
}


class PageError(ValueError):
    """A command that would be refused."""


@dataclass(frozen=True)
class Command:
    """A command as bash would start it: the number of its block, its folder from the root, and its words."""

    block: int
    folder: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        place = "" if self.folder == "." else f" in {self.folder}"
        return f"block {self.block}{place}: {shlex.join(self.words)}"

    @property
    def is_python(self) -> bool:
        return self.words[0] in ("python", "python3", "torchrun")

    @property
    def code(self) -> str | None:
        """The text behind ``python -c``."""
        return self.words[self.words.index("-c") + 1] if self.is_python and "-c" in self.words else None

    @property
    def module(self) -> str | None:
        """The module that it starts, under its name in the repository; None for another program."""
        scripts = dict(_SCRIPT.findall((ROOT / "pyproject.toml").read_text(encoding="utf-8")))
        if self.words[0] in scripts:
            name = f"mcp_medsam.{scripts[self.words[0]]}".removesuffix(".__main__").removesuffix(".cli")
        elif self.is_python and "-m" in self.words:
            name = self.words[self.words.index("-m") + 1]
        else:
            return None
        return name.replace("mcp_medsam.data_prep", "data_prep").replace("mcp_medsam", "custom")

    @property
    def arguments(self) -> list[str]:
        """The words behind the program or the module."""
        return list(self.words[self.words.index("-m") + 2 if self.is_python and "-m" in self.words else 1 :])


@dataclass
class Meaning:
    """What a command was understood as: the function it calls, its named values, and its other words."""

    function: object = None
    named: dict[str, str] = field(default_factory=dict)
    free: list[str] = field(default_factory=list)


def commands_of(text: str, scratch: Path) -> tuple[list[Command], list[str]]:
    """Return a page's commands, and what bash finds wrong: errors of syntax, a block that ends in another folder."""
    root = scratch / "repository"
    root.mkdir(parents=True)
    files = []
    for number, body in enumerate(blocks(text, "bash"), start=1):
        files.append(scratch / f"{number}.sh")
        files[-1].write_text(_OWN_PYTHON.sub("", body), encoding="utf-8")
    record = scratch / "record"
    record.touch()
    program = ["bash", "--norc", "-c", _RECORDER, "bash", *map(str, files)]
    environment = {"RECORD": str(record), "ROOT": str(root), "HOME": str(scratch)}
    done = subprocess.run(program, cwd=root, env=environment, capture_output=True, text=True)
    found, number, problems = [], 1, [done.stderr] if done.stderr or done.returncode else []
    for entry in record.read_text(encoding="utf-8").split("\x1e\0")[:-1]:
        place, *words = entry.split("\0")[:-1]
        folder = os.path.relpath(place, root)
        if words != ["#end"]:
            found.append(Command(number, folder, tuple(words)))
            continue
        if folder != ".":
            problems.append(f"block {number} ends in {folder}; allowed: the folder in which it began")
        number += 1
    return found, problems


def problems_of(text: str, scratch: Path) -> list[str]:
    """Return everything that is wrong with the commands of a page, a line each."""
    commands, problems = commands_of(text, scratch)
    root, made = scratch / "repository", []
    made += [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]  # by "> file"
    for command in commands:
        try:
            meaning = understood(command)
        except (PageError, SyntaxError) as error:
            problems.append(f"{command}: {error}")
            continue
        results, needed = files_of(command, meaning)
        problems += [f"{command}: no {path}" for path in needed if not is_there(path, made)]
        made += results
    return problems


def understood(command: Command) -> Meaning:
    """Return what a command would do.

    Raises:
        PageError: it would be refused, or there is no such module.
        SyntaxError: of ``python -c``.
    """
    module, words = command.module, command.arguments
    if command.code is not None:
        ast.parse(command.code)
        return Meaning()
    if module is None:
        return Meaning(free=words)
    if module == "monai.bundle":
        return _bundle(words, command.folder)
    if module == "monailabel.main":
        keys = [words[i + 1] for i, word in enumerate(words) if word == "--conf"]
        _check_known(keys, inspect.signature(Conf).parameters, "--conf")
        return Meaning(free=words)
    if module in ("venv", "pip", "http.server") or module.startswith("jupyter"):
        return Meaning(free=words)
    if find_spec(module) is None:
        raise PageError(f"no module {module}")
    if module.split(".")[0] in ("custom", "data_prep"):
        return _own(module, words)
    if module.split(".")[0] == "tests":
        keys = [word[2:].partition("=")[0] for word in words if word.startswith("--")]
        _check_known(keys, _parameters_of_test(module), module)
    return Meaning(free=words)


def _own(module: str, words: list[str]) -> Meaning:
    meaning = Meaning()

    def fire(function: object, arguments: list[str], name: str) -> None:
        meaning.function = function
        for word in arguments:
            key, equals, value = word.partition("=")
            if equals and key.startswith("--"):
                meaning.named[key[2:]] = value
            else:
                meaning.free.append(word)

    kept_fire, kept_words = command_line.fire.Fire, sys.argv
    command_line.fire.Fire, sys.argv = fire, [module, *words]
    try:
        importlib.import_module(main_module(module)).main()
    except SystemExit as stop:
        raise PageError(str(stop.code)) from None
    finally:
        command_line.fire.Fire, sys.argv = kept_fire, kept_words
    if meaning.function is not None:
        _check_overrides(meaning)
    if module == "custom.experiments":
        for name in meaning.free:
            if not (is_own(name) or list(CONFIGS.glob(f"{name}.json")) or (ROOT / name).is_file()):
                raise PageError(f"no config {name}")
        meaning.free = []
    return meaning


def _check_overrides(meaning: Meaning) -> None:
    """Check what a function takes as ``**overrides``: keys of the configs."""
    known = inspect.signature(meaning.function).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    if takes_any and meaning.function.__module__ != "data_prep.cli":  # its options are checked already
        keys = {key for path in CONFIGS.rglob("*.json") for key in json.loads(path.read_text(encoding="utf-8"))}
        try:
            command_line.check_keys(set(meaning.named) - set(known), keys)
        except InputError as error:
            raise PageError(str(error)) from None


def _bundle(words: list[str], folder: str) -> Meaning:
    """Understand ``python -m monai.bundle VERB ...``: the keys are those of the configs that it names."""
    verb, *rest = words
    function = getattr(monai.bundle, verb, None)
    if function is None:
        raise PageError(f"monai.bundle has no {verb}")
    meaning = Meaning(function)
    while rest:
        word = rest.pop(0)
        key, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--"):
            meaning.free.append(word)
        else:
            meaning.named[key] = value if equals else rest.pop(0) if rest and not rest[0].startswith("--") else "True"
    parameters = inspect.signature(function).parameters
    others = [key for key in meaning.named if key not in parameters]
    if verb != "run":
        _check_known(others, [] if "override" not in parameters else others, f"monai.bundle {verb}")
        return meaning
    text = meaning.named.get("config_file", "no --config_file")
    files = ast.literal_eval(text) if text.startswith("[") else [text]
    files = [file for file in files if not is_own(file)]
    for file in files:
        if not (ROOT / folder / file).is_file():
            raise PageError(f"no config {os.path.normpath(os.path.join(folder, file))}")
    parser = ConfigParser()
    parser.read_config([str(ROOT / folder / file) for file in files])
    for key in [*meaning.free, *others]:
        if key not in parser:
            raise PageError(f"{files[-1]} has no key {key}")
    return Meaning(function, meaning.named)


def _check_known(keys: Iterable[str], known: Iterable[str], where: str) -> None:
    for key in keys:
        if key not in known:
            raise PageError(f"{where} has no {key}")


def _parameters_of_test(module: str) -> Iterable[str]:
    """Return the options of a program among the tests: the parameters of the function it gives to fire."""
    loaded = importlib.import_module(main_module(module))
    name = re.search(r"fire\.Fire\((\w+)", Path(loaded.__file__).read_text(encoding="utf-8"))[1]
    return inspect.signature(getattr(loaded, name)).parameters


def main_module(module: str) -> str:
    """Return the module with the ``main`` of what ``python -m`` starts."""
    if module == "data_prep":
        return "data_prep.cli"
    return f"{module}.__main__" if (ROOT / module.replace(".", "/")).is_dir() else module


def files_of(command: Command, meaning: Meaning) -> tuple[list[str], list[str]]:
    """Return the paths that a command makes and those it reads, from the root."""
    made: list[str] = []
    read: list[str] = []
    if command.code is not None:
        made += filter(looks_like_path, re.findall(r"['\"]([^'\"]+)['\"]", command.code))
    elif command.words[0] == "curl":
        read += [word.rpartition("@")[2] for word in meaning.free if re.fullmatch(r"\w*=?@[\w./-]+", word)]
        made += [meaning.free[i + 1] for i, word in enumerate(meaning.free) if word == "-o"]
    elif command.words[0] in ("mkdir", "cp", "mv", "ln"):
        paths = [word for word in meaning.free if not word.startswith("-")]
        made, read = (paths, []) if command.words[0] == "mkdir" else (paths[-1:], paths[:-1])
    else:
        for before, word in zip(["", *meaning.free], meaning.free, strict=False):
            (made if before in _MADE or before[2:] in _MADE else read).extend(_paths(word))
    for key, value in meaning.named.items():
        if key in _MADE:
            made.append(value)
        elif key in _READ or (key not in _NO_FILE and looks_like_path(value)):
            read += _paths(value, sure=key in _READ)
    if command.module == "data_prep" and command.arguments[:1] == ["demo"]:
        made.append("data/demo")
    if command.module == "monai.bundle" and command.arguments[0] == "run":  # where its results go by default
        made += [os.path.relpath(CONFIGS.parent / name, ROOT / command.folder) for name in ("eval", "models")]
    return [_from_root(command, path) for path in made], [_from_root(command, path) for path in read]


def looks_like_path(word: str) -> bool:
    """Whether a word names a file, and is neither an option, an address, a number nor a mapping."""
    if word.startswith(("-", "{", "[", "$", "^", "file=", "params=")) or "://" in word or " " in word:
        return False
    return "CAPTURED" not in word and bool("/" in word or _SUFFIX.search(word.lower()))


def _paths(word: str, *, sure: bool = False) -> Iterator[str]:
    """Yield the paths of ``FILE``, ``FOLDER,FOLDER`` and ``NAME=FOLDER,FOLDER``."""
    value = word.partition("=")[2] if "=" in word and not word.startswith("-") else word
    yield from (part for part in value.split(",") if part and (sure or looks_like_path(part)))


def _from_root(command: Command, path: str) -> str:
    return os.path.normpath(os.path.join(command.folder, path.partition("::")[0]))


def is_own(path: str) -> bool:
    """Whether a part of a path is in capitals: a user's own file or folder."""
    return any(re.fullmatch(r"[A-Z][A-Z0-9_]*", part.partition(".")[0]) for part in path.split("/"))


def is_there(path: str, made: list[str]) -> bool:
    """Whether a file is in the repository, was made by an earlier command, or is a user's own (in capitals)."""
    if is_own(path) or path in (".", "lite_medsam") or path.startswith("../"):
        return True
    if any(path == other or path.startswith(f"{other}/") or other.startswith(f"{path}/") for other in made):
        return True
    known = with_folders(tree())
    if any(letter in path for letter in "*?["):
        return any(match.relative_to(ROOT).as_posix() in known for match in ROOT.glob(path))
    return path in known
