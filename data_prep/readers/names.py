"""Names of label ids, as manifests and users write them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from custom.errors import InputError

ALL_IDS = "*"
_ID = re.compile(r"[0-9]{1,9}")


def is_id(text: str) -> bool:
    """Return whether a text is a label id: at most nine decimal digits."""
    return _ID.fullmatch(text) is not None


def parse_names(value: Any, source: str, field: str) -> dict[int | str, str]:
    """Return id -> name with whole numbers as ids, and with ``"*"`` kept, which names every other id.

    Args:
        value: id -> name; an id is a whole number from 1 up, or its digits as text.
        source: the file or argument the names came from, for the error.
        field: the part of it, for the error.

    Raises:
        InputError: it is not such a mapping, or it is empty.

    Example:
        >>> parse_names({"1": "liver", "*": "vessel"}, "arguments", "names")
        {1: 'liver', '*': 'vessel'}
    """
    if not isinstance(value, Mapping) or not value:
        raise InputError(source, field, repr(value), "an object of id -> name")
    names: dict[int | str, str] = {}
    for key, name in value.items():
        if key != ALL_IDS and not (is_id(str(key)) and int(key) > 0):
            raise InputError(source, field, repr(key), 'ids from 1 up, or "*"')
        names[key if key == ALL_IDS else int(key)] = str(name)
    return names
