"""Clicks on an image, and a mask to correct, as the user gives them."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from custom.errors import InputError
from custom.images.formats import format_of
from custom.images.image import Image
from custom.inference.box_input import from_world
from custom.inference.click_check import by_object, labels_by_object
from custom.inference.mask_boxes import mask_objects
from custom.json_files import parse_json

#: How clicks are written, for errors.
_POINTS = (
    '"x y; x y" (of a volume "x y z; x y z"), with | between objects: "12 40; 15 52 | 80 33", or JSON, a list of '
    "clicks for each object"
)
_LABELS = '"1 0", with | between objects: "1 0 | 1", or JSON'


class Clicks(NamedTuple):
    """The clicks and masks of the objects of one image, as ``Predictor.predict`` takes them, and their names."""

    points: list[list[list[float]]] | None
    point_labels: list[list[int]] | None
    masks: list[np.ndarray] | None
    names: tuple[str, ...] | None


@dataclass(frozen=True, kw_only=True)
class ClickInput:
    """Clicks and a mask file, checked as far as possible without the image. Made by ``parse``.

    Attributes:
        points: clicks of each object, 2 or 3 numbers each; None if there is only a mask.
        labels: 1 or 0 for each click; None for 1.
        world: whether the numbers are mm.
        mask: file whose labels are the objects to correct, or None.
    """

    points: tuple[tuple[tuple[float, ...], ...], ...] | None = None
    labels: tuple[tuple[int, ...], ...] | None = None
    world: bool = False
    mask: str | None = None

    @classmethod
    def parse(
        cls,
        points: object = None,
        labels: object = None,
        mask: object = None,
        *,
        world: bool = False,
        folder: str | os.PathLike[str] | None = None,
        source: str = "arguments",
    ) -> ClickInput | None:
        """Parse clicks from the command line or a list; None if there are neither clicks nor a mask.

        Args:
            points: lists as for ``Predictor.predict``, or their text: ``"12 40; 15 52 | 80 33"`` or JSON.
            labels: 1 or 0 for each click, or their text: ``"1 0 | 1"`` or JSON; 1 by default.
            mask: path of a mask of any format, in which each value above 0 is an object.
            world: the numbers are mm, as for boxes.
            folder: where a relative path starts; by default the current folder.
            source: where the values come from, for errors.

        Raises:
            InputError: malformed clicks or labels, labels without clicks, or no such mask.
        """
        if points is None:
            if labels is not None:
                raise InputError(source, "point_labels", repr(labels)[:80], "no labels without points")
            if mask is None:
                return None
            return cls(mask=_existing(mask, folder, source))
        clicks = by_object(_from_text(points, source, "points"), source)
        for n, k in ((n, k) for n, given in enumerate(clicks) for k in range(len(given))):
            if len(clicks[n][k]) not in (2, 3) or not np.isfinite(clicks[n][k]).all():
                raise InputError(source, f"points[{n}][{k}]", clicks[n][k], "x y, in a volume x y z")
        signs = None
        if labels is not None:
            signs = labels_by_object(_from_text(labels, source, "point_labels"), source)
            counts = [[len(given) for given in lists] for lists in (signs, clicks)]
            if counts[0] != counts[1]:
                found, allowed = (" | ".join(map(str, count)) for count in counts)
                raise InputError(source, "point_labels", f"{found} labels", f"{allowed}, one for each click")
        return cls(
            points=tuple(tuple(map(tuple, given)) for given in clicks),
            labels=None if signs is None else tuple(map(tuple, signs)),
            world=bool(world),
            mask=None if mask is None else _existing(mask, folder, source),
        )

    @property
    def files(self) -> tuple[str, ...]:
        """The mask file, if any."""
        return () if self.mask is None else (self.mask,)

    @property
    def description(self) -> dict[str, Any]:
        """JSON values that identify the clicks together with the states of ``files``, without folders."""
        return asdict(replace(self, mask=None))

    def resolve(self, image: Image, *, in_slices: bool = False) -> Clicks:
        """Return the clicks in pixels of an image's source, and the masks in its shape; not checked any further.

        Args:
            image: the image.
            in_slices: the objects lie on slices of a volume, and so their clicks are x y.

        Raises:
            InputError: clicks in mm do not fit the image, or the mask does not.
        """
        points = None if self.points is None else [[list(click) for click in clicks] for clicks in self.points]
        if self.world and points is not None:
            points = [[_placed(click, image, in_slices) for click in clicks] for clicks in points]
        masks, names = (None, None) if self.mask is None else mask_objects(self.mask, image)
        labels = None if self.labels is None else [list(signs) for signs in self.labels]
        return Clicks(points, labels, masks, names)


def _from_text(value: object, source: str, field: str) -> object:
    """Return the nested lists in a text; any other value as it is."""
    if not isinstance(value, str):
        return value
    allowed = _POINTS if field == "points" else _LABELS
    if value.lstrip().startswith("["):
        return parse_json(value, source, allowed, field=field)
    try:
        if field == "points":
            return [[_click(text) for text in part.split(";") if text.strip()] for part in value.split("|")]
        return [[int(text) for text in part.replace(",", " ").split()] for part in value.split("|")]
    except ValueError:
        raise InputError(source, field, repr(value)[:80], allowed) from None


def _click(text: str) -> list[float]:
    return [float(number) for number in text.replace(",", " ").split()]


def _placed(click: list[float], image: Image, in_slices: bool) -> list[float]:
    """Convert a click in mm to a pixel of the source."""
    box = from_world(np.array([[*click, *click]]), image, in_slices, field="points")[0]
    return box[: len(box) // 2].tolist()


def _existing(path: object, folder: str | os.PathLike[str] | None, source: str) -> str:
    text = str(Path(folder or "", str(path)))
    if not os.path.exists(text):  # also False for what cannot be a path
        raise InputError(source, "mask", f"{text}: no such file", "a mask file")
    format_of(text)
    return text
