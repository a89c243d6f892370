"""The names of ``from custom import ...``, imported when they are asked for: a part needs only what it uses itself."""

from __future__ import annotations

import importlib
from typing import Any

PLACES = {"Predictor": "inference.predictor", "read_image": "images.reading"}


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module {__package__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__package__}.{PLACES[name]}"), name)
