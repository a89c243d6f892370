"""Work on one image step by step: any number of objects, undo and redo, saved to a file and loaded again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from custom.atomic_write import write_whole
from custom.errors import InputError
from custom.images.frame import IMAGE_SIZE
from custom.images.intensity import Window, parse_window
from custom.images.reading import read_image
from custom.inference.click_check import check_clicks
from custom.inference.corrections import Corrections
from custom.inference.joining import join_objects
from custom.inference.label_map import check_overlap
from custom.inference.predictor import Predictor
from custom.inference.result import Result
from custom.inference.segmenter import Segmentation
from custom.inference.session_file import (
    FORMAT,
    VERSION,
    SessionObject,
    StoredMask,
    checked_box,
    checked_name,
    digest_of,
    points_along,
    read_mask,
    read_session,
    relative,
    stored_mask,
    written_action,
)
from custom.prompts import POSITIVE

#: Distance of the clicks along a scribble, in pixels of the 256 frame (the image's longer side is 256 of them).
SCRIBBLE_STEP = 16


class Session:
    """One image and the objects on it, each with a box, clicks or a mask; every action can be undone.

    Each object is segmented on its own, when its mask is first needed, so that its mask does not depend on the other
    objects. It is the mask ``Predictor.predict`` gives for the same prompts of this object.

    Args:
        predictor: its image is not changed.
        image_path: a file or folder that ``read_image`` reads.
        modality: one of the eleven; None uses what the file declares, else what the network predicts for each object.
        window: for CT that is not uint8; see ``read_image``.
        suv_max: upper end of the range of a PET in SUV.
        frame: number of the volume in a 4D file, from 0.
        series: which DICOM series of a folder.
        overlap: which mask gets a pixel of ``labels`` that several cover; see ``Predictor.predict``.
        follow: follow an object through the slices of a volume.

    Raises:
        InputError: the image cannot be read, or an option is not allowed.

    Example:
        >>> session = Session(Predictor(), "eye.png", "Fundus")  # doctest: +SKIP
        >>> disc = session.add_object("disc", box=[122, 545, 322, 750])  # doctest: +SKIP
        >>> session.click(disc, [200, 600], 1)  # doctest: +SKIP
        >>> session.undo(), session.redo()  # doctest: +SKIP
        >>> session.masks[disc].shape, session.save("eye.session.json")  # doctest: +SKIP
    """

    def __init__(
        self,
        predictor: Predictor,
        image_path: str | PathLike[str],
        modality: str | None = None,
        *,
        window: str | Window = "soft_tissue",
        suv_max: float | None = None,
        frame: int | None = None,
        series: str | int | None = None,
        overlap: str = "logit",
        follow: bool = True,
    ) -> None:
        shown = window if isinstance(window, Window) else parse_window(window)
        if not isinstance(follow, bool):
            raise InputError("arguments", "follow", repr(follow), "True, False")
        self.predictor = predictor
        self.image = read_image(image_path, modality, shown, suv_max, frame, series)
        self.options = {
            "modality": modality,
            "window": [shown.level, shown.width],
            "suv_max": suv_max,
            "frame": frame,
            "series": series,
            "overlap": check_overlap(overlap),
            "follow": follow,
        }
        self._actions: list[dict[str, Any]] = []
        self._states: list[dict[int, SessionObject]] = [{}]
        self._position = 0
        self._segmented: dict[int, tuple[tuple[Any, ...], Segmentation]] = {}

    @property
    def objects(self) -> Mapping[int, SessionObject]:
        """The objects by their ids, in the order they were added."""
        return dict(self._states[self._position])

    def add_object(
        self, name: str | None = None, box: object = None, mask: str | PathLike[str] | np.ndarray | None = None
    ) -> int:
        """Add an object and return its id.

        Args:
            name: "object <id>" by default.
            box: as for ``Predictor.predict``, 4 numbers, in a volume 6; None if clicks will find the object.
            mask: a mask to correct, for pictures: an array in the source's own shape, or a mask file with one value
                above 0.

        Raises:
            InputError: the box or the mask does not fit the image.
        """
        return self._add(name, box, None if mask is None else stored_mask(mask, self.image))

    def set_box(self, number: int, box: object) -> None:
        """Give an object another box, or none; its clicks stay.

        Raises:
            InputError: no such object, or a box that does not fit the image.
        """
        known = replace(self._object(number), box=checked_box(box, self.image))
        self._do({"do": "box", "id": number, "box": box if box is None else list(known.box)}, known)

    def click(self, number: int, point: Sequence[float], label: int = POSITIVE) -> None:
        """Correct the mask of an object by a click.

        Args:
            number: id of the object.
            point: x y, in a volume x y z, in pixels of the source.
            label: 1 on the object, 0 beside it.

        Raises:
            InputError: no such object, a click outside the image, another label, a volume's object without a box, or
                weights that were not trained with clicks.
        """
        self._click(number, [point], [label])

    def scribble(self, number: int, polyline: Sequence[Sequence[float]], label: int = POSITIVE) -> None:
        """Correct the mask of an object by a line: clicks at both ends and evenly between them, one action.

        The clicks lie on whole pixels, at most ``SCRIBBLE_STEP`` pixels of the 256 frame apart along the line.

        Args:
            number: id of the object.
            polyline: corners of the line, each as a click.
            label: 1 on the object, 0 beside it.

        Raises:
            InputError: as for ``click``; or a line without a point.
        """
        (line,) = check_clicks(self.image, [polyline])
        if not len(line.points):
            raise InputError(self.image.path, "scribble", "no point", "one or more")
        sides = self.image.array.shape[:2] if self.image.kind == "picture" else self.image.array.shape[1:3]
        points = points_along(line.points, SCRIBBLE_STEP * max(sides) / IMAGE_SIZE).tolist()
        self._click(number, points, [label] * len(points))

    def remove_object(self, number: int) -> None:
        """Remove an object; its id is not used again.

        Raises:
            InputError: no such object.
        """
        self._object(number)
        self._do({"do": "remove", "id": number}, None)

    def rename(self, number: int, name: str) -> None:
        """Give an object another name.

        Raises:
            InputError: no such object, or an empty name.
        """
        self._do(
            {"do": "rename", "id": number, "name": name},
            replace(self._object(number), name=checked_name(name, self.image)),
        )

    def undo(self) -> None:
        """Take the last action back.

        Raises:
            InputError: there is none.
        """
        if not self._position:
            raise InputError("Session", "undo", "no action", "an action before")
        self._position -= 1

    def redo(self) -> None:
        """Do again what was undone last; a new action clears what could be done again.

        Raises:
            InputError: nothing was undone.
        """
        if self._position == len(self._actions):
            raise InputError("Session", "redo", "nothing undone", "undo before, and no new action since")
        self._position += 1

    @property
    def can_undo(self) -> bool:
        """Whether there is an action to take back."""
        return self._position > 0

    @property
    def can_redo(self) -> bool:
        """Whether there is an action to do again."""
        return self._position < len(self._actions)

    @property
    def masks(self) -> dict[int, np.ndarray]:
        """Mask of each object by its id, bool, in the source's own shape; empty for one without a prompt.

        Raises:
            InputError: the network cannot be started, or was not trained with clicks.
        """
        empty = self.image.array.shape[: 2 if self.image.kind == "picture" else 3]
        found = self._segmentations()
        return {
            number: self.image.to_source(found[number].masks[0] if number in found else np.zeros(empty, bool))
            for number in self.objects
        }

    @property
    def iou(self) -> dict[int, float]:
        """Predicted IoU of each mask by the id of its object; 0 for one without a prompt."""
        found = self._segmentations()
        return {number: float(found[number].iou[0]) if number in found else 0.0 for number in self.objects}

    @property
    def labels(self) -> np.ndarray:
        """Label map in the source's own shape: value k for object k of ``result``.

        Raises:
            InputError: no object has a prompt.
        """
        return self.result().labels

    def result(self) -> Result:
        """Return the objects that have a prompt, in the order they were added; its ``save`` writes the masks.

        Raises:
            InputError: no object has a prompt.
        """
        found = self._segmentations()
        if not found:
            raise InputError(self.image.path, "objects", "no object with a prompt", "add_object, with a box or a click")
        objects = [self.objects[number] for number in found]
        prompts = [known.checked(self.image) for known in objects]
        nothing = Corrections(points=np.zeros((0, len(self.image.size))))
        joined = join_objects(list(found.values()), self.options["overlap"])
        return Result(
            image=self.image,
            boxes=np.concatenate([checked.boxes for checked in prompts]),
            slices=None,
            corrections=[nothing if checked.corrections is None else checked.corrections[0] for checked in prompts],
            names=tuple(known.name for known in objects),
            segmentation=joined,
            model=self.predictor.network.facts,
            seconds=joined.seconds,
        )

    def save(self, path: str | PathLike[str]) -> None:
        """Write everything to a JSON file, whole or not at all: image, options, objects and all actions.

        Paths of the image and of mask files are relative to the file where that is possible.

        Raises:
            OSError: the file cannot be written.
        """
        file = Path(path)
        content = {
            "format": FORMAT,
            "version": VERSION,
            "image": {"path": relative(self.image.path, file.parent), "digest": digest_of(self.image.array)},
            "options": self.options,
            "objects": self._written_objects(),
            "position": self._position,
            "actions": [written_action(action, file.parent) for action in self._actions],
        }
        text = json.dumps(content) + "\n"
        write_whole(file, lambda opened: opened.write(text.encode()))

    @classmethod
    def load(cls, path: str | PathLike[str], predictor: Predictor) -> Session:
        """Load what ``save`` has written; with the same weights, the masks are the same.

        Raises:
            InputError: no such file, one of another version, malformed, or the image or a mask file has changed.
        """
        file = Path(path)
        content = read_session(file)
        options = dict(content["options"])
        try:
            window = parse_window(options.pop("window"))
            image = os.path.normpath(file.parent / content["image"]["path"])
            session = cls(predictor, image, window=window, **options)
        except InputError:
            raise
        except (TypeError, ValueError) as error:
            raise InputError(file, "options", error, "those that Session.save has written") from error
        if digest_of(session.image.array) != content["image"].get("digest"):
            raise InputError(file, "image", f"{session.image.path}, which has changed", "the image of the session")
        for n, action in enumerate(content["actions"]):
            session._replay(action, file.parent, f"{file}: actions[{n}]")
        session._position = content["position"]
        if session._written_objects() != content["objects"]:
            raise InputError(file, "objects", "other objects than its actions give", "a file as Session.save wrote it")
        return session

    def _replay(self, action: object, folder: Path, source: str) -> None:
        """Do an action of a file, without starting the network."""
        match action:
            case {"do": "add", "name": name, "box": box, "mask": mask}:
                self._add(name, box, None if mask is None else read_mask(mask, self.image, folder, source))
            case {"do": "box", "id": number, "box": box}:
                self.set_box(number, box)
            case {"do": "click", "id": number, "points": list(points), "point_labels": labels}:
                self._click(number, points, labels, replayed=True)
            case {"do": "remove", "id": number}:
                self.remove_object(number)
            case {"do": "rename", "id": number, "name": name}:
                self.rename(number, name)
            case _:
                raise InputError(source, "action", repr(action)[:80], "an action that Session.save has written")

    def _add(self, name: str | None, box: object, mask: StoredMask | None) -> int:
        number = 1 + sum(action["do"] == "add" for action in self._actions[: self._position])
        title = f"object {number}" if name is None else checked_name(name, self.image)
        known = SessionObject(name=title, box=checked_box(box, self.image), mask=mask)
        given = None if known.box is None else list(known.box)
        self._do({"do": "add", "id": number, "name": title, "box": given, "mask": mask}, known)
        return number

    def _click(self, number: int, points: Sequence[Any], labels: object, *, replayed: bool = False) -> None:
        known = self._object(number)
        (given,) = check_clicks(self.image, [points], [labels])
        found, signs = given.points.tolist(), given.labels.tolist()
        points, labels = (*known.points, *map(tuple, found)), (*known.point_labels, *signs)
        changed = replace(known, points=points, point_labels=labels)
        changed.checked(self.image)
        if not replayed:
            self.predictor.require_clicks()
        self._do({"do": "click", "id": number, "points": found, "point_labels": signs}, changed)

    def _do(self, action: dict[str, Any], known: SessionObject | None) -> None:
        """Note an action, and the object as it then is; None if it is removed."""
        objects = dict(self._states[self._position])
        if known is None:
            del objects[action["id"]]
        else:
            known.checked(self.image)
            objects[action["id"]] = known
        del self._actions[self._position :], self._states[self._position + 1 :]
        self._actions.append(action)
        self._states.append(objects)
        self._position += 1

    def _object(self, number: int) -> SessionObject:
        objects = self._states[self._position]
        if not isinstance(number, int) or number not in objects:
            found = ", ".join(map(str, objects)) or "none: add_object first"
            raise InputError(self.image.path, "object", repr(number)[:80], f"an id of an object: {found}")
        return objects[number]

    def _segmentations(self) -> dict[int, Segmentation]:
        """Segment the objects that have a prompt, each on its own; what has not changed is kept."""
        found = {}
        for number, known in self.objects.items():
            prompts, kept = known.checked(self.image), self._segmented.get(number)
            if prompts is None:
                continue
            if kept is None or kept[0] != known.prompts:
                follow = self.options["follow"]
                kept = known.prompts, self.predictor.segment(self.image, prompts, follow=follow, keep_logits=True)
            found[number] = kept
        self._segmented = found
        return {number: segmentation for number, (_, segmentation) in found.items()}

    def _written_objects(self) -> list[dict[str, Any]]:
        return [{"id": number, **known.written()} for number, known in self.objects.items()]
