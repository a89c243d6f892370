"""The boxes of an image as the user gives them: numbers in pixels or mm, a markups file, or a mask."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from custom.errors import InputError
from custom.images.formats import endings, format_of, kinds
from custom.images.image import Image
from custom.inference.mask_boxes import mask_boxes
from custom.inference.slicer_markups import Region, place_regions, read_markups
from custom.json_files import parse_json

#: How boxes are written, for errors.
_FORMS = (
    '"x_min y_min x_max y_max", of a volume "x_min y_min z_min x_max y_max z_max"; several with semicolons or brackets '
    'between them: "1 2 8 6; 3 0 9 7" or [[1,2,8,6],[3,0,9,7]]; 3D Slicer\'s .mrk.json; or a mask file'
)
_LISTS = (".json", ".csv", ".tsv")
#: Voxels by which a box in mm may extend beyond the image: up to the outer face of its border.
_HALF = 0.5 + 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class Boxes:
    """The boxes of one image.

    Attributes:
        values: N boxes of 4 or 6 numbers in pixels of the source, float, not checked against the image.
        slices: for boxes of 4 numbers in a volume, the slice of each along the third axis; else None.
        names: names of the objects if the file of the boxes has them; else None.
    """

    values: Any
    slices: tuple[int, ...] | None
    names: tuple[str, ...] | None


@dataclass(frozen=True, kw_only=True)
class BoxInput:
    """Boxes as the user gives them, checked as far as possible without the image. Made by ``parse``.

    Attributes:
        numbers: N boxes of 4 or 6 numbers; empty if they are in a file.
        slices: slice of each box of 4 numbers in a volume, or None.
        world: whether the numbers are mm.
        regions: ROIs and lines of a markups file.
        path: the markups or mask file, or None.
        margin: pixels by which the boxes of a mask file grow.
    """

    numbers: tuple[tuple[float, ...], ...] = ()
    slices: tuple[int, ...] | None = None
    world: bool = False
    regions: tuple[Region, ...] = ()
    path: str | None = None
    margin: int = 0

    @classmethod
    def parse(
        cls,
        value: object,
        *,
        world: bool = False,
        margin: int = 0,
        slices: object = None,
        folder: str | os.PathLike[str] | None = None,
        source: str = "arguments",
    ) -> BoxInput:
        """Parse boxes from the command line or a list.

        Args:
            value: a list of 4 or 6 numbers, or a list of such lists; their text, ``"1 2 8 6; 3 0 9 7"`` or JSON; or
                the path of a markups file of 3D Slicer (always in mm) or of a mask.
            world: the numbers are mm, right-anterior-superior as NIfTI and 3D Slicer show them, 6 per box; for an image
                without a grid 4 or 6 mm from the centre of the first pixel.
            margin: pixels by which the boxes of a mask grow in the plane of the slices.
            slices: for boxes of 4 numbers in a volume, the slice along the third axis, one for all or one each.
            folder: where a relative path starts; by default the current folder.
            source: where the value comes from, for errors.

        Raises:
            InputError: neither boxes nor such a file, or an option that does not fit them.
        """
        if isinstance(margin, bool) or not isinstance(margin, Integral) or margin < 0:
            raise InputError(source, "margin", repr(margin), "a whole number of pixels from 0 up")
        given = _from_text(value, source) if isinstance(value, str) else value
        if not isinstance(value, os.PathLike) and (given is not None or not isinstance(value, str)):
            numbers = _checked(given, source, ordered=not world)
            _refuse_margin(margin, source)
            return cls(numbers=numbers, slices=_checked_slices(slices, numbers, source), world=bool(world))
        path = str(Path(folder or "", value))
        if not os.path.exists(path):  # also False for what cannot be a path
            named = os.sep in path or path.lower().endswith((*endings(), *_LISTS))
            raise InputError(source, "boxes", f"{path}: no such file" if named else repr(path), _FORMS)
        if slices is not None:
            raise InputError(source, "slice", repr(slices), "no slice: the file places its boxes itself")
        if path.lower().endswith(".json"):
            _refuse_margin(margin, source)
            return cls(path=path, regions=read_markups(path))
        if world:
            raise InputError(source, "world", f"mm for {path}", "mm for numbers: a mask has its own grid")
        try:
            format_of(path)
        except InputError as error:
            raise InputError(source, "boxes", path, f"3D Slicer's .mrk.json, or a mask: {kinds()}") from error
        return cls(path=path, margin=int(margin))

    @property
    def files(self) -> tuple[str, ...]:
        """The files that the boxes are read from."""
        return () if self.path is None else (self.path,)

    @property
    def count(self) -> int | None:
        """The number of boxes; None if they are in a mask file that is not read yet."""
        return len(self.numbers) or len(self.regions) or None

    @property
    def description(self) -> dict[str, Any]:
        """JSON values that identify the boxes together with the states of ``files``, without folders."""
        return asdict(replace(self, path=None))

    def resolve(self, image: Image) -> Boxes:
        """Return the boxes in pixels of an image's source.

        Ends in mm are rounded to the nearest voxel; those up to half a voxel outside the image become its border.
        For ROIs and lines see ``place_regions``, for masks ``mask_boxes``.

        Raises:
            InputError: boxes in mm do not fit the image, an ROI or line lies outside it, or the mask cannot be
                read, is empty or lies on another grid.
        """
        if self.regions:
            values, slices = place_regions(self.regions, image, self.path)
            given = [region.name for region in self.regions]
            names = tuple(name or f"box {n}" for n, name in enumerate(given, 1)) if any(given) else None
            return Boxes(values=values, slices=slices, names=names)
        if self.path is not None:
            boxes, names = mask_boxes(self.path, image, self.margin)
            return Boxes(values=boxes, slices=None, names=names)
        values = np.array(self.numbers, np.float64)
        if self.world:
            values = from_world(values, image, self.slices is not None)
        return Boxes(values=values, slices=self.slices, names=None)


def _refuse_margin(margin: int, source: str) -> None:
    if margin:
        raise InputError(source, "margin", margin, "0 for these boxes: only the boxes of a mask file can have a margin")


def _from_text(text: str, source: str) -> object:
    """Return the boxes in a text, or None if it can only be a path."""
    if text.lstrip().startswith("["):
        return parse_json(text, source, _FORMS, field="boxes")
    try:
        return [[float(n) for n in box.replace(",", " ").split()] for box in text.split(";") if box.strip()]
    except ValueError:
        return None


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _checked(given: object, source: str, *, ordered: bool) -> tuple[tuple[float, ...], ...]:
    """Check the form of boxes and, if ``ordered``, that no end comes before its start."""
    boxes = given.tolist() if isinstance(given, np.ndarray) else given
    if isinstance(boxes, Sequence) and boxes and all(map(_is_number, boxes)):
        boxes = [boxes]
    if not isinstance(boxes, Sequence) or isinstance(boxes, str) or not boxes:
        raise InputError(source, "boxes", repr(given)[:80], _FORMS)
    for n, box in enumerate(boxes):
        field = f"boxes[{n}]"
        if isinstance(box, str) or not isinstance(box, Sequence) or not all(map(_is_number, box)):
            raise InputError(source, field, repr(box)[:80], _FORMS)
        if len(box) not in (4, 6):
            raise InputError(source, field, f"{len(box)} numbers in one box", _FORMS)
        if len(box) != len(boxes[0]):
            raise InputError(source, field, f"{len(box)} numbers", f"{len(boxes[0])} as in the first box")
        if not all(abs(number) <= sys.float_info.max for number in box):
            raise InputError(source, field, list(box), "finite numbers")
        half = len(box) // 2
        for axis, low, high in zip("xyz", box[:half], box[half:], strict=False):
            if ordered and high < low:
                raise InputError(source, field, list(box), f"{axis}_min <= {axis}_max")
    return tuple(tuple(float(number) for number in box) for box in boxes)


def _checked_slices(slices: object, boxes: Sequence[Sequence[float]], source: str) -> tuple[int, ...] | None:
    if slices is None:
        return None
    numbers = list(slices) if isinstance(slices, (list, tuple)) else [slices]
    whole = all(isinstance(n, Integral) and not isinstance(n, bool) and n >= 0 for n in numbers)
    if not whole or len(numbers) not in (1, len(boxes)):
        allowed = f"a whole number from 0 up, or {len(boxes)}, one for each box"
        raise InputError(source, "slice", repr(slices)[:80], allowed)
    if len(boxes[0]) != 4:
        raise InputError(source, "slice", repr(slices)[:80], "no slice for boxes of 6 numbers")
    return tuple(int(n) for n in numbers) * (len(boxes) // len(numbers))


def from_world(boxes: np.ndarray, image: Image, in_slices: bool, *, field: str = "boxes") -> np.ndarray:
    """Convert boxes in mm to whole voxels of the source; a point is a box whose ends are equal.

    Args:
        boxes: Nx4 or Nx6.
        image: the image.
        in_slices: the boxes lie on slices of a volume.
        field: what to name in errors, "boxes" or "points".

    Raises:
        InputError: a wrong number of numbers, or a box that does not meet the only slice of the image.
    """
    space = 3 if image.geometry is not None else 2 if in_slices else len(image.size)
    if boxes.shape[1] != 2 * space:
        found, allowed = (n // 2 if field == "points" else n for n in (boxes.shape[1], 2 * space))
        raise InputError(image.path, field, f"{found} numbers in mm", f"{allowed} numbers in mm")
    flat = image.flat_axis
    # As a volume, to see whether a box meets the only slice.
    ends = (image if flat is None else replace(image, kind="volume")).boxes_from_world(boxes)
    sizes = np.array(image.size[:space] if image.geometry is None else image.geometry.shape)
    inside = np.clip(ends, 0, np.tile(sizes - 1, 2))
    ends = np.rint(np.where(np.abs(ends - inside) <= _HALF, inside, ends))
    if flat is None:
        return ends
    for n, (low, high) in enumerate(ends[:, [flat, flat + 3]]):
        if low > 0 or high < 0:
            found = boxes[n, :3] if field == "points" else boxes[n]
            allowed = "a place in mm that meets the one slice of the image"
            raise InputError(image.path, f"{field}[{n}]", found.tolist(), allowed)
    return np.delete(ends, [flat, flat + 3], axis=1)
