"""Which part of the code may import which: only downwards, and never in a circle.

Every import counts, also one inside a function; one for type hints alone does not. There is one way upwards, which is
not seen here since it goes by names in a text: ``custom/public_names.py`` loads what ``from custom import Predictor``
asks for.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: From the bottom to the top. A part imports from lower layers and from itself; parts of one layer do not know each
#: other. A part is a folder or a module of ``custom/``, or ``data_prep`` as a whole.
LAYERS = (
    {"errors"},
    {"atomic_write", "bundle_folder", "limits", "lite_medsam", "memory", "modalities", "prompts", "public_names"},
    {"json_files", "version"},
    {"command_line", "recipes"},
    {"bundle_run", "data", "images", "losses", "metrics"},
    {"clicks"},
    {"networks"},
    {"checkpoints", "transforms"},
    {"engines"},
    {"export"},
    {"inference"},
    {"handlers"},
    {"data_prep"},
    {"report"},
    {"experiments", "label_app", "package", "profile", "score", "segment"},
)
#: The same inside ``data_prep/``.
PREPARATION = (
    {"masks", "phantoms"},
    {"readers"},
    {"splits", "writer"},
    {"journal"},
    {"pipeline"},
    {"check", "clip_features", "show", "speed"},
    {"cli"},
    {"__main__"},
)


@cache
def modules() -> dict[str, Path]:
    """Return dotted name -> file of all modules."""
    files = [path for folder in ("custom", "data_prep") for path in (ROOT / folder).rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the names that a module imports, except for type hints."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        yield from imports(node)


@cache
def graph() -> dict[str, set[str]]:
    """Return module -> the modules of this project that it imports."""
    found = {}
    for name, path in modules().items():
        names = set(imports(ast.parse(path.read_text(encoding="utf-8"))))
        found[name] = (names & modules().keys()) - {"custom", "data_prep", name}
    return found


def part(module: str, within: str) -> str | None:
    """Return the part that a module belongs to, None for one outside of a package."""
    package, _, rest = module.partition(".")
    if package == within:
        return rest.partition(".")[0] or None
    return package if within == "custom" else None


@pytest.mark.parametrize(("package", "layers"), [("custom", LAYERS), ("data_prep", PREPARATION)])
def test_every_part_has_its_layer(package, layers):
    found = {part(module, package) for module in modules()} - {None}
    assert found == set().union(*layers) and len(found) == sum(map(len, layers))


@pytest.mark.parametrize(("package", "layers"), [("custom", LAYERS), ("data_prep", PREPARATION)])
def test_imports_go_downwards(package, layers):
    height = {name: number for number, layer in enumerate(layers) for name in layer}
    wrong = []
    for module, imported in graph().items():
        for other in imported:
            above, below = part(module, package), part(other, package)
            if None in (above, below) or above == below:
                continue
            if height[below] >= height[above]:
                wrong.append(f"{module} imports {other}")
    assert wrong == []


def test_no_import_goes_in_a_circle():
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_the_check_sees_what_it_should():
    code = """
from typing import TYPE_CHECKING
import custom.a.b
if TYPE_CHECKING:
    from custom.c import d
def function():
    from custom.e import f
"""
    assert set(imports(ast.parse(code))) == {"typing", "typing.TYPE_CHECKING", "custom.a.b", "custom.e", "custom.e.f"}
    assert len(graph()) > 150 and "custom.networks.mcp_medsam" in graph()["custom.networks"]
