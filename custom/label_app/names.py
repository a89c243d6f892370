"""Names in requests, and in the index of a datastore, that MONAI Label joins to paths."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from custom.errors import InputError

_NAME = re.compile(r"[^/\\\x00]+")
_IMAGES, _LABELS = ".", "labels"  # MONAI Label's own folders in a datastore


def plain_name(value: object, field: str, source: str = "request") -> str:
    """Return a name, checked: it must not be a path.

    Raises:
        InputError: it is a path, or not text.
    """
    if not isinstance(value, str) or not _NAME.fullmatch(value) or value in (".", ".."):
        raise InputError(source, field, repr(value), "a name without / and \\")
    return value


def check_upload(name: str, endings: Collection[str]) -> None:
    """Check the name a file would get in the datastore: visible, and with the ending of an image.

    Raises:
        InputError: it is hidden, or has another ending, like the index of the datastore.
    """
    if name.startswith(".") or not name.endswith(tuple(endings)):
        raise InputError("request", "file name", repr(name), f"a name that ends in {', '.join(sorted(endings))}")


def check_index(index: Any, source: str) -> None:
    """Check the index of a datastore, which may have been copied along with the images.

    Args:
        index: MONAI Label's ``LocalDatastoreModel``.
        source: its file, for the error.

    Raises:
        InputError: it names files outside the datastore.
    """
    for field, own in (("images_dir", _IMAGES), ("labels_dir", _LABELS)):
        if getattr(index, field) != own:
            raise InputError(source, field, repr(getattr(index, field)), repr(own))
    for image, item in index.objects.items():
        plain_name(image + item.image.ext, "objects", source)
        for tag, label in item.labels.items():
            plain_name(tag, f"objects.{image}.labels", source)
            plain_name(image + label.ext, f"objects.{image}.labels", source)
