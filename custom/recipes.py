"""Recipes: the small config files below ``configs/`` that stand over ``configs/train.json``.

A recipe holds the keys that it changes. Three keys of its own say where it begins and what it ends in:

- ``inherits_from``: another recipe, whose keys it takes over.
- ``checkpoint``: as in ``train.json``, or a recipe: the training starts from the weights that recipe makes.
- ``weights``: in place of a training, steps that make weights out of others. Each is a function and its arguments; a
  recipe among these stands for the weights it makes, and the argument ``checkpoint`` is by default what the step
  before has made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from custom.bundle_folder import CONFIGS
from custom.errors import InputError
from custom.json_files import read_json

TRAIN, EVALUATE = CONFIGS / "train.json", CONFIGS / "evaluate.json"
#: Keys that the runner reads; MONAI's workflows have no such key.
INHERITS_FROM, WEIGHTS = "inherits_from", "weights"


@dataclass(frozen=True)
class Recipe:
    """One recipe.

    Attributes:
        files: its config files in the order in which they change ``train.json``; the last one is its own.
        content: key -> value of all of them together.
    """

    files: tuple[Path, ...]
    content: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of its own file, without ".json"."""
        return self.files[-1].stem

    @property
    def seed(self) -> int:
        """Seed of its training, or of the first one of several."""
        return self.content.get("seed", 0)

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The steps that make its weights, empty for a recipe that trains."""
        return self.content.get(WEIGHTS, [])

    @property
    def stages(self) -> list[str]:
        """The recipes whose weights it takes, as it names them."""
        steps = self.steps or [{"checkpoint": self.content.get("checkpoint")}]
        values = dict.fromkeys(value for step in steps for value in step.values() if isinstance(value, str))
        return [value for value in values if _file(value).is_file()]


def find_recipes(names: Sequence[object], inherits_from: str | None = None) -> list[Recipe]:
    """Return the recipes of some names, each once.

    Args:
        names: below ``configs/`` without ".json", patterns such as "ablation/*", or files anywhere.
        inherits_from: what they inherit from, in place of what they say themselves.

    Raises:
        InputError: no such recipe, or two of one name.
    """
    files: list[Path] = []
    for name in map(str, names):
        found = [Path(name).absolute()] if Path(name).is_file() else sorted(CONFIGS.glob(f"{name}.json"))
        if not found:
            raise _unknown("arguments", "recipe", name)
        files += found
    recipes = [read_recipe(file, inherits_from) for file in dict.fromkeys(files)]
    stems = [recipe.name for recipe in recipes]
    repeated = next((stem for stem in stems if stems.count(stem) > 1), None)
    if not recipes or repeated:
        raise InputError("arguments", "recipes", f"{repeated} twice" if repeated else "none", "names that differ")
    return recipes


def read_recipe(file: Path, inherits_from: str | None = None) -> Recipe:
    """Read a recipe and those it inherits from.

    Args:
        file: the recipe.
        inherits_from: what it inherits from, in place of what it says itself.

    Raises:
        InputError: no such recipe to inherit from, or it inherits from itself.
    """
    contents = {file: read_object(file)}
    parent = inherits_from or contents[file].get(INHERITS_FROM)
    while parent is not None:
        heir, file = file, _file(parent)
        if not file.is_file():
            raise _unknown(heir, INHERITS_FROM, parent)
        if file in contents:
            raise InputError(heir, INHERITS_FROM, parent, "a recipe that does not inherit from this one")
        contents = {file: read_object(file), **contents}
        parent = contents[file].get(INHERITS_FROM)
    merged = {key: value for content in contents.values() for key, value in content.items() if key != INHERITS_FROM}
    return Recipe(tuple(contents), merged)


def stage(name: str) -> Recipe:
    """Return the recipe that another one names as a stage."""
    return read_recipe(_file(name))


def read_object(file: Path) -> dict[str, Any]:
    """Return what a JSON file of names and values holds, for instance a config.

    Raises:
        InputError: it cannot be read, or holds something else.
    """
    content = read_json(file, "a JSON object")
    if not isinstance(content, dict):
        raise InputError(file, "file", type(content).__name__, "a JSON object")
    return content


def _file(name: str) -> Path:
    return CONFIGS / f"{name}.json"


def _unknown(source: object, field: str, name: str) -> InputError:
    known = [f"{path.parent.name}/{path.stem}" for path in sorted(CONFIGS.glob("*/*.json"))]
    return InputError(source, field, repr(name), f"{', '.join(known)}, or a config file")
