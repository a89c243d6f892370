"""The names of ``from custom import ...``, imported on first use, so that each part needs only its own dependencies."""

from __future__ import annotations

import importlib
from typing import Any

PLACES = {"Predictor": "inference.predictor", "Session": "inference.session", "read_image": "images.reading"}


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module {__package__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__package__}.{PLACES[name]}"), name)
