"""Masks stored as pictures: label ids, numbered objects, black and white, or colours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from custom.errors import InputError
from custom.images.decoding import as_label
from custom.images.formats import has_ending
from custom.images.image import Image
from custom.images.reading import read_labels
from data_prep.masks import paint
from data_prep.readers.base import ALL_IDS, check_shape, parse_names, read_raw

KINDS = ("auto", "ids", "instances", "binary", "colours")
BACKGROUND = "background"
_MAX_COLOURS = 64
_OBJECT = "object"
_LOSSY_ENDINGS = (".jpg", ".jpeg", ".webp")
_COLOUR = re.compile(r"#[0-9a-f]{6}", re.IGNORECASE)


@dataclass(frozen=True)
class MaskPicture:
    """The content of the mask files of one image; its fields are those of ``Case``."""

    label: np.ndarray
    names: dict[int | str, str]
    instance: bool


@dataclass(frozen=True)
class MaskRules:
    """How mask files are read; made by ``mask_rules``. The colours of the palette are numbers, 0xRRGGBB."""

    kind: str
    palette: dict[int, str] | None
    names: dict[int | str, str] | None

    @property
    def one_name(self) -> str | None:
        """The name of the only possible object; None if ``names`` has several ids."""
        if self.names is None:
            return _OBJECT
        return next(iter(self.names.values())) if len(self.names) == 1 else None


def mask_rules(
    kind: str = "auto", palette: Mapping[str, str] | None = None, names: Mapping[int | str, str] | None = None
) -> MaskRules:
    """Check the options of mask files.

    Args:
        kind: meaning of the pixels.

            - ``"ids"``: each value is a label id.
            - ``"instances"``: each value is one object, named ``names["*"]`` if given.
            - ``"binary"``: 0 and anything else; in a JPEG or WebP, which changes values, below 128 and from 128. The
              id is 1.
            - ``"colours"``: each colour is a label, named by ``palette``. Without a palette the colours of a file
              other than black are numbered in the order of their red, green and blue values, at most 64 of them.
            - ``"auto"``: ``"colours"`` if there is a palette. Otherwise decided for each file, by the first rule that
              applies: a JPEG or WebP is ``"binary"``; so is a file with one value or colour besides 0 or black, unless
              ``names`` has several ids; a file with colours is ``"colours"``; any other is ``"ids"``.
        palette: ``"#ff0000"`` or ``"255,0,0"`` -> name. Colours of one name are one label; the name ``"background"``
            is not a label, nor is black if it is not listed.
        names: id, or ``"*"`` for every other id, -> name. Ids without a name are dropped. By default ``"object"``,
            ``"label 3"`` for ids and ``"#ff0000"`` for colours.

    Raises:
        InputError: a value that is not allowed, or options that contradict each other.
    """
    if kind not in KINDS:
        raise InputError("arguments", "kind", repr(kind), ", ".join(KINDS))
    colours = None if palette is None else _parse_palette(palette)
    texts = None if names is None else parse_names(names, "arguments", "names")
    if colours is not None and kind not in ("auto", "colours"):
        raise InputError("arguments", "palette", f"one beside kind {kind}", "kind auto or colours")
    if texts is not None and (kind == "colours" or colours is not None):
        raise InputError("arguments", "names", "names of ids for masks of colours", "a palette, which gives the names")
    if kind == "binary" and texts is not None and len(texts) > 1:
        raise InputError("arguments", "names", f"{len(texts)} names for binary masks", "one name")
    return MaskRules("colours" if colours else kind, colours, texts)


def read_masks(paths: Sequence[str], image: Image, rules: MaskRules) -> MaskPicture:
    """Read the mask files of one image.

    Several files hold one object each: anything but 0 (in a JPEG or WebP, from 128 up). Where they overlap, the smaller
    object lies on top. Unless the kind is ``"binary"``, a lossless file then has one value besides 0.

    Args:
        paths: the files.
        image: the image, from ``read_raw``.
        rules: from ``mask_rules``.

    Raises:
        InputError: a file cannot be read, has another size than the image, or does not fit the rules.
    """
    if len(paths) > 1:
        if rules.kind in ("ids", "colours"):
            found = f"{len(paths)} files of one image, beside kind {rules.kind}"
            raise InputError(paths[0], "mask", found, "one file, or kind auto, instances or binary")
        objects = (np.flatnonzero(_one_object(path, image, rules)) for path in paths)
        label = paint(objects, image.array.shape[:3], paths[0])
        return MaskPicture(label, {ALL_IDS: _one_name(rules, paths[0])}, instance=True)
    path = paths[0]
    stored = _stored(path, image, colours=rules.kind == "colours")
    kind = rules.kind
    if kind == "auto":
        two_values = _is_lossy(path) or (rules.one_name is not None and _has_one_value(stored, path))
        kind = "binary" if two_values else "colours" if stored.ndim == 4 else "ids"
    if kind == "colours":
        return _colours(stored, rules, path)
    if kind == "binary":
        return MaskPicture(_foreground(stored, path).astype(np.uint8), {1: _one_name(rules, path)}, instance=False)
    if stored.ndim == 4 or _is_lossy(path):
        found = "a colour picture" if stored.ndim == 4 else "a JPEG or WebP, which changes values"
        raise InputError(path, "mask", found, f"one channel of exact values for kind {kind}")
    if kind == "instances":
        return MaskPicture(stored, rules.names or {ALL_IDS: _OBJECT}, instance=True)
    return MaskPicture(stored, rules.names or {v: f"label {v}" for v in _distinct(stored)}, instance=False)


def _stored(path: str, image: Image, *, colours: bool = False) -> np.ndarray:
    """Return a mask of the size of its image: (Z, H, W) integers, or (Z, H, W, 3) if there are ``colours``."""
    mask = read_raw(path).array if colours else _ids_or_colours(path)
    check_shape(mask.shape[:3], image, path, "mask")
    return mask


def _ids_or_colours(path: str) -> np.ndarray:
    try:
        return read_labels(path).array
    except InputError as error:
        if error.field != "label":
            raise
    picture = read_raw(path).array  # it has more than one channel, or as_label refuses its values again
    if picture.ndim == 4 and (picture != picture[..., :1]).any():
        return picture
    return as_label(picture[..., 0] if picture.ndim == 4 else picture, path)


def _one_object(path: str, image: Image, rules: MaskRules) -> np.ndarray:
    stored = _stored(path, image)
    if rules.kind != "binary" and not _is_lossy(path) and not _has_one_value(stored, path):
        raise InputError(path, "mask", "several values in one of several files", "one object per file, or kind binary")
    return _foreground(stored, path)


def _one_name(rules: MaskRules, path: str) -> str:
    if rules.one_name is None:
        raise InputError(path, "mask", f"one kind of object for {len(rules.names)} names", "one name, or a mask of ids")
    return rules.one_name


def _foreground(stored: np.ndarray, path: str) -> np.ndarray:
    brightest = stored.max(axis=-1) if stored.ndim == 4 else stored  # ZxHxW[x3] -> ZxHxW
    return brightest >= 128 if _is_lossy(path) else brightest > 0


def _colours(picture: np.ndarray, rules: MaskRules, path: str) -> MaskPicture:
    codes = _codes(picture, path)
    values, ids = _distinct(codes), {0: 0}
    if rules.palette is not None:
        kept = [name for name in dict.fromkeys(rules.palette.values()) if name != BACKGROUND]
        names = dict(enumerate(kept, 1))
        numbers = {name: i for i, name in names.items()} | {BACKGROUND: 0}
        ids |= {value: numbers[name] for value, name in rules.palette.items()}
        unknown = [_hex(value) for value in values if value not in ids]
        if unknown:
            found = f"the colour {unknown[0]}" + (f" and {len(unknown) - 1} more" if unknown[1:] else "")
            raise InputError(path, "mask", found, f"colours of the palette: {', '.join(map(_hex, rules.palette))}")
    elif rules.names is not None:
        raise InputError(path, "mask", f"{len(values)} colours beside names of ids", "a palette, which gives the names")
    elif len(values) > _MAX_COLOURS:
        raise InputError(path, "mask", f"{len(values)} colours", f"at most {_MAX_COLOURS}, or a palette")
    else:
        ids |= {value: i for i, value in enumerate(values, 1)}
        names = {i: _hex(value) for i, value in enumerate(values, 1)}
    order = sorted(ids)
    table = np.array([ids[value] for value in order], np.uint16)
    return MaskPicture(table[np.searchsorted(order, codes)], names, instance=False)


def _codes(picture: np.ndarray, path: str) -> np.ndarray:
    """Return 0xRRGGBB of every pixel: ZxHxW[x3] -> ZxHxW."""
    if picture.dtype != np.uint8:
        raise InputError(path, "mask", f"dtype {picture.dtype}", "colours of 8 bits per channel")
    red, green, blue = np.moveaxis(picture, -1, 0) if picture.ndim == 4 else (picture,) * 3
    return (red.astype(np.int32) << 16) | (green.astype(np.int32) << 8) | blue


def _distinct(values: np.ndarray) -> list[int]:
    """Return the values other than 0, ascending; masks have long runs of one value: only their starts are sorted."""
    flat = values.ravel()
    starts = flat[np.flatnonzero(flat[1:] != flat[:-1]) + 1]
    return [value for value in np.unique(np.append(starts, flat[:1])).tolist() if value]


def _has_one_value(stored: np.ndarray, path: str) -> bool:
    return len(_distinct(_codes(stored, path) if stored.ndim == 4 else stored)) <= 1


def _is_lossy(path: str) -> bool:
    return has_ending(path, _LOSSY_ENDINGS)


def _hex(value: int) -> str:
    return f"#{value:06x}"


def _parse_palette(palette: Mapping[str, str]) -> dict[int, str]:
    if not isinstance(palette, Mapping) or not palette:
        raise InputError("arguments", "palette", repr(palette), 'an object of "#rrggbb" or "red,green,blue" -> name')
    colours = {}
    for key, name in palette.items():
        parts = re.split(r"\s*,\s*", str(key).strip())
        if _COLOUR.fullmatch(parts[0]) and len(parts) == 1:
            value = int(parts[0][1:], 16)
        elif len(parts) == 3 and all(re.fullmatch(r"[0-9]{1,3}", p) and int(p) <= 255 for p in parts):
            value = int.from_bytes(bytes(map(int, parts)), "big")
        else:
            raise InputError("arguments", "palette", repr(key), '"#rrggbb" or "red,green,blue" from 0 to 255')
        if value in colours:
            raise InputError("arguments", "palette", f"{_hex(value)} twice", "each colour once")
        colours[value] = str(name)
    return colours
