"""What a session is made of, and its file: objects, masks and paths as JSON values."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from custom.errors import InputError
from custom.images.image import Image
from custom.inference.mask_boxes import mask_objects
from custom.inference.prompt_check import CheckedPrompts, check_prompts
from custom.json_files import read_json

FORMAT, VERSION = "mcp-medsam session", 1
OPTIONS = ("modality", "window", "suv_max", "frame", "series", "overlap", "follow")
_KEYS = {"image": dict, "options": dict, "objects": list, "actions": list, "position": int}
_ALLOWED = "a file that Session.save has written"


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredMask:
    """A mask to correct.

    Attributes:
        array: bool, in the shape of the image's source.
        path: the file it is from; None for an array.
    """

    array: np.ndarray
    path: str | None = None

    def written(self, folder: Path) -> dict[str, Any]:
        """Return JSON values: a path relative to the folder and a digest, or without a file run lengths."""
        if self.path is None:
            return {"runs": run_lengths(self.array)}
        return {"path": relative(self.path, folder), "digest": digest_of(self.array)}


@dataclass(frozen=True, kw_only=True)
class SessionObject:
    """An object of a session.

    Attributes:
        name: its name.
        box: 4 or 6 numbers in pixels of the source, or None.
        points: clicks in the order they were made, x y (z) in pixels of the source.
        point_labels: 1 on the object or 0 beside it, for each click.
        mask: the mask to correct, or None.
    """

    name: str
    box: tuple[float, ...] | None = None
    points: tuple[tuple[float, ...], ...] = ()
    point_labels: tuple[int, ...] = ()
    mask: StoredMask | None = None

    @property
    def prompts(self) -> tuple[Any, ...]:
        """What its mask follows from."""
        return self.box, self.points, self.point_labels, self.mask

    def checked(self, image: Image) -> CheckedPrompts | None:
        """Check its prompts against its image; None if it has none.

        Raises:
            InputError: see ``check_prompts``.
        """
        if self.box is None and not self.points and self.mask is None:
            return None
        clicks = ([self.points], [self.point_labels]) if self.points else (None, None)
        return check_prompts(image, self.box, None, *clicks, None if self.mask is None else [self.mask.array])

    def written(self) -> dict[str, Any]:
        """Return JSON values; of a mask, only that there is one."""
        box = None if self.box is None else list(self.box)
        points, labels = [list(point) for point in self.points], list(self.point_labels)
        return {"name": self.name, "box": box, "points": points, "point_labels": labels, "mask": self.mask is not None}


def read_session(path: Path) -> dict[str, Any]:
    """Read the file of a session.

    Raises:
        InputError: no such file, malformed, or of another version.
    """
    content = read_json(path, _ALLOWED)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(path, "format", repr(content)[:80], _ALLOWED)
    if content.get("version") != VERSION:
        raise InputError(path, "version", repr(content.get("version"))[:80], str(VERSION))
    for key, kind in _KEYS.items():
        if not isinstance(content.get(key), kind):
            raise InputError(path, key, repr(content.get(key))[:80], _ALLOWED)
    if not isinstance(content["image"].get("path"), str):
        raise InputError(path, "image", repr(content["image"])[:80], "path and digest of the image")
    if sorted(content["options"]) != sorted(OPTIONS):
        raise InputError(path, "options", ", ".join(content["options"]), ", ".join(OPTIONS))
    if not 0 <= content["position"] <= len(content["actions"]):
        raise InputError(
            path, "position", content["position"], f"0 to {len(content['actions'])}, the number of actions"
        )
    return content


def stored_mask(mask: object, image: Image) -> StoredMask:
    """Return the mask of one object, from a mask file or an array.

    Raises:
        InputError: it cannot be read, does not fit the image or has several values above 0.
    """
    if isinstance(mask, (str, os.PathLike)):
        masks, _ = mask_objects(str(mask), image)
        if len(masks) > 1:
            raise InputError(mask, "mask", f"{len(masks)} objects", "one object, or the mask of one as an array")
        return StoredMask(array=masks[0], path=str(mask))
    try:
        return StoredMask(array=np.asarray(mask) > 0)
    except (TypeError, ValueError):
        raise InputError(image.path, "mask", repr(mask)[:80], "a mask file, or an array of numbers") from None


def checked_name(name: object, image: Image) -> str:
    """Return the name of an object without space around it.

    Raises:
        InputError: an empty name.
    """
    if not isinstance(name, str) or not name.strip():
        raise InputError(image.path, "name", repr(name)[:80], "a name that is not empty")
    return name.strip()


def checked_box(box: object, image: Image) -> tuple[float, ...] | None:
    """Return the box of an object, in pixels of the source; None for None.

    Raises:
        InputError: it does not fit the image, or several boxes.
    """
    if box is None:
        return None
    boxes = check_prompts(image, box).boxes
    if len(boxes) != 1:
        raise InputError(image.path, "box", f"{len(boxes)} boxes", "one box")
    return tuple(boxes[0].tolist())


def written_action(action: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return an action of a session as JSON values; paths are relative to the folder."""
    mask = action.get("mask")
    return {**action, "mask": mask.written(folder)} if isinstance(mask, StoredMask) else dict(action)


def read_mask(described: object, image: Image, folder: Path, source: str) -> StoredMask:
    """Return the mask that ``StoredMask.written`` has described.

    Args:
        described: the JSON values.
        image: the image of the mask.
        folder: where a relative path starts.
        source: the file of the session and the place in it, for errors.

    Raises:
        InputError: malformed, no such file, or one that has changed.
    """
    match described:
        case {"path": str(path), "digest": digest}:
            mask = stored_mask(os.path.normpath(folder / path), image)
            if digest_of(mask.array) != digest:
                raise InputError(mask.path, "mask", "another mask than when the session was saved", "the same mask")
            return mask
        case {"runs": list(runs)}:
            shape = image.to_source(np.zeros(image.array.shape[: 2 if image.kind == "picture" else 3], bool)).shape
            whole = all(isinstance(run, int) and run >= 0 for run in runs)
            if whole and sum(runs) == np.prod(shape):
                values = np.arange(len(runs)) % 2 == 1
                return StoredMask(array=np.repeat(values, runs).reshape(shape))
    raise InputError(
        source, "mask", repr(described)[:80], "path and digest of a mask file, or run lengths of the image"
    )


def run_lengths(mask: np.ndarray) -> list[int]:
    """Return the lengths of equal values along the rows of a mask; the first counts what is outside.

    Example:
        >>> run_lengths(np.array([[True, False], [False, True]]))
        [0, 1, 2, 1]
    """
    flat = mask.ravel()
    ends = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]])
    return [0] * bool(flat[0]) + np.diff(ends).tolist()


def digest_of(array: np.ndarray) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of an array, its shape and its type."""
    digest = hashlib.sha256(f"{array.dtype} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def relative(path: str | os.PathLike[str], folder: Path) -> str:
    """Return a path as it is seen from a folder; absolute if it lies on another drive."""
    place = os.path.abspath(path)
    try:
        return Path(os.path.relpath(place, os.path.abspath(folder))).as_posix()
    except ValueError:  # Windows: another drive
        return place


def points_along(corners: Sequence[Sequence[float]] | np.ndarray, step: float) -> np.ndarray:
    """Return whole pixels along a line, both ends and evenly between them.

    Args:
        corners: Px2 or Px3, at least one.
        step: the largest distance along the line between two of them, before they are rounded.
    """
    corners = np.asarray(corners, np.float64)
    at = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(corners, axis=0), axis=1))])
    places = np.linspace(0.0, at[-1], int(np.ceil(at[-1] / step)) + 1)
    points = np.rint(np.stack([np.interp(places, at, axis) for axis in corners.T], axis=1))
    kept = np.concatenate([[True], (np.diff(points, axis=0) != 0).any(axis=1)])
    return points[kept]
