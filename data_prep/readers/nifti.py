"""Reader of the layouts of NIfTI sets: nnU-Net v2, the Medical Segmentation Decathlon, and plain folders."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from custom.errors import InputError
from custom.images.reading import read_labels
from custom.modalities import MODALITIES, canonical_modality
from data_prep.readers.base import Case, Reader, Source, parse_names, read_raw, safe_name
from data_prep.readers.nifti_layouts import INDEX, find_layout

_SEQUENCES = "t1 t1w t1c t1ce t1gd t1n t2 t2w t2f t2star flair adc dwi pd pdw swi mra dce".split()


class NiftiReader(Reader):
    """Read pairs of files of any format, in the first of these layouts that ``src`` has.

    - nnU-Net v2: ``dataset.json`` with ``channel_names``; ``imagesTr/CASE_0000.nii.gz`` with one file per channel
      and ``labelsTr/CASE.nii.gz``, or with another ``file_ending``. The channels R, G, B are one picture in colour.
    - MSD: ``dataset.json`` with ``modality`` and ``training``; an image of several modalities is 4D. A list
      ``validation`` of the same form, if there is one, gives the split.
    - Plain: the folders ``images`` and ``labels``, also below ``train`` and ``val``, which then give the split. Files
      are paired by name; an image's name may end in ``_0000`` and a label's in ``_seg``, ``_label``, ``_mask``
      or ``_gt``, also with ``.`` or ``-`` as written by 3D Slicer.

    Every channel is a separate case; the channels of one image count as one patient, so that they are on
    the same side of a split. An image without a label, or the reverse, is a source with an error.

    Args:
        src: folder of the set.
        modality: modality of the plain layout, and of every channel whose name gives none.
        images: image folder of the plain layout.
        labels: label folder of the plain layout.
        names: label id -> name, ``"*"`` for every other id; ids without a name are dropped. It replaces the names of
            ``dataset.json``. Without either, every mask is an "object".

    Raises:
        InputError: the folder is missing or has none of the layouts, ``dataset.json`` is malformed, or a modality is
            unknown.
    """

    def __init__(
        self,
        src: str | Path,
        *,
        modality: str | None = None,
        images: str = "images",
        labels: str = "labels",
        names: Mapping[int | str, str] | None = None,
    ) -> None:
        self.use_folder(src, "a folder of images and labels")
        chosen = None if modality is None else canonical_modality(modality, "arguments")
        self.layout = find_layout(self.src, str(images), str(labels))
        self.modalities = [_modality(channel, chosen, self.src) for channel in self.layout.channels or [None]]
        self.names = self.layout.label_names() if names is None else parse_names(names, "arguments", "names")

    def sources(self) -> list[Source]:
        """List every channel of every image, in the order of the layout."""
        found = []
        for pair in self.layout.pairs():
            case = (self.name, pair.split, pair.name)
            if pair.error:
                found.append(Source(safe_name(*case), error=pair.error))
                continue
            several = len(pair.images) > 1
            for channel, (path, modality) in enumerate(zip(pair.images, self.modalities, strict=True)):
                entry = {
                    "image": str(path),
                    "label": str(pair.label),
                    "channel": channel if self.layout.stacked else None,
                    "modality": modality,
                    "split": pair.split,
                    "names": {str(key): name for key, name in self.names.items()},
                    "meta": {"patient": safe_name(*case)} if several else {},
                }
                name = safe_name(modality, *case, f"{channel:04d}" if several else None)
                found.append(Source(name, entry, (str(path), str(pair.label))))
        if not found:
            raise InputError(self.src, "src", "no pair of files", "at least one image with its label")
        return found

    def load(self, source: Source) -> Case:
        """Load one channel of one image, and its label."""
        entry = source.entry
        image = read_raw(entry["image"], frame=entry["channel"])
        return Case(
            name=source.name,
            modality=entry["modality"],
            dataset=self.name,
            split=entry["split"],
            image=image,
            label=read_labels(entry["label"], image).array,
            label_file=entry["label"],
            names=parse_names(entry["names"], entry["label"], "names"),
            meta=entry["meta"],
        )


def _modality(channel: str | None, chosen: str | None, src: Path) -> str:
    """Return the modality that a channel's name gives, else the chosen one."""
    words = [] if channel is None else [channel, *re.split(r"[^A-Za-z0-9]+", channel)]
    known = {modality for word in words if (modality := _understood(word))}
    if len(known) == 1:
        return known.pop()
    if chosen is None:
        found = "none" if channel is None else f"the channel {channel!r}"
        where = src if channel is None else src / INDEX
        raise InputError(where, "modality", found, f"--modality with one of {', '.join(MODALITIES)}")
    return chosen


def _understood(word: str) -> str | None:
    if word.lower() in _SEQUENCES:
        return "MR"
    try:
        return canonical_modality(word)
    except InputError:
        return None
