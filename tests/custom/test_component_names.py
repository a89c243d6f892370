"""Names that configs give as ``_target_`` must mean the same on every Python."""

import ast
from pathlib import Path

import pytest

PACKAGES = sorted((Path(__file__).parents[2] / "custom").rglob("__init__.py"))


@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: path.parent.name)
def test_no_component_is_called_like_its_module(path):
    """Since Python 3.12 ``pydoc.locate``, which MONAI resolves targets with, gives the module where both exist."""
    imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    exported = {alias.asname or alias.name for node in imports for alias in node.names}
    assert not exported & {module.stem for module in path.parent.glob("*.py")}
