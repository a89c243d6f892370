"""Reader of a folder of images and a folder of masks, paired by file name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from custom.errors import InputError
from custom.images.formats import has_ending, pictures, tiff
from custom.modalities import canonical_modality
from data_prep.readers.base import TRAIN, VALIDATION, Case, Reader, Source, read_raw, safe_name
from data_prep.readers.mask_pictures import mask_rules, read_masks

_MASK_NAME = re.compile(r"(.+?)(_(?:mask|seg|label|gt|segmentation))?(_[0-9]+)?", re.IGNORECASE)
_LAYOUT = "folders of images and masks, or train/ and val/ with such folders"


class ImagesReader(Reader):
    """Read pictures and TIFF stacks with masks of the same size.

    The masks of ``case.jpg`` are all of these files that exist: ``case.png``, ``case_mask.png`` (or ``_seg``,
    ``_label``, ``_gt``, ``_segmentation``), ``case_1.png``, ``case_mask_0.png`` and all files of a folder ``case/``.
    If there are several, each holds one object. ``masks`` may be the same folder as ``images``; masks must then have
    one of these words. A stack of several pages is a volume. A picture is turned upright by EXIF orientation, and its
    masks must match what viewers show.

    Args:
        src: folder with the two folders, or with ``train/`` and ``val/`` that hold both and give the split. If only
            one of these exists, it is the whole set and gives none.
        modality: the modality of all images.
        images: name of the folder of images.
        masks: name of the folder of masks.
        kind: meaning of the pixels of masks; see :func:`data_prep.readers.mask_pictures.mask_rules`.
        palette: colour -> name; see :func:`mask_rules`.
        names: id -> name; see :func:`mask_rules`.

    Raises:
        InputError: a folder is missing, the modality is unknown, or the options of masks are wrong.
    """

    def __init__(
        self,
        src: str | Path,
        *,
        modality: str,
        images: str = "images",
        masks: str = "masks",
        kind: str = "auto",
        palette: Mapping[str, str] | None = None,
        names: Mapping[int | str, str] | None = None,
    ) -> None:
        self.use_folder(src, _LAYOUT)
        self.modality = canonical_modality(modality, "arguments")
        self.rules = mask_rules(kind, palette, names)
        self.images, self.masks = str(images), str(masks)
        self.folders = self._find_folders()

    def sources(self) -> list[Source]:
        """List the images in alphabetical order; a file without a counterpart has an error."""
        found = [source for split, folder in self.folders.items() for source in self._list(split, folder)]
        if not found:
            raise InputError(self.src, "images", "no picture", f"{pictures.DESCRIPTION}, {tiff.DESCRIPTION}")
        return found

    def load(self, source: Source) -> Case:
        """Load one image with its masks."""
        entry = source.entry
        image = read_raw(entry["image"])
        masks = read_masks(entry["masks"], image, self.rules)
        return Case(
            name=source.name,
            modality=self.modality,
            dataset=self.name,
            split=entry["split"],
            image=image,
            label=masks.label,
            label_file=entry["masks"][0],
            names=masks.names,
            instance=masks.instance,
        )

    def _find_folders(self) -> dict[str | None, Path]:
        """Return split -> the folder that contains the two folders."""
        parts = {part: self.src / part for part in (TRAIN, VALIDATION) if (self.src / part / self.images).is_dir()}
        if parts and self.images != "." and (self.src / self.images).is_dir():
            raise InputError(self.src, "src", f"{self.images}/ beside {', '.join(parts)}", _LAYOUT)
        folders = parts if len(parts) == 2 else {None: next(iter(parts.values()), self.src)}
        for folder in folders.values():
            for name in (self.images, self.masks):
                if not (folder / name).is_dir():
                    raise InputError(folder, "src", f"no folder {name}", _LAYOUT)
        return folders

    def _list(self, split: str | None, folder: Path) -> Iterator[Source]:
        images, masks, alone = _pair(folder / self.images, folder / self.masks)
        names = set()
        for path in images:
            name = safe_name(self.modality, self.name, split, path.stem)
            files = [str(file) for file in masks.get(path.stem, [])]
            error = None
            if not files:
                error = InputError(path, "mask", "none", f"a picture of the same name in {folder / self.masks}")
            elif name in names:
                error = InputError(path, "file name", path.name, "a unique name without the ending")
            if error is not None:
                yield Source(str(path), error=error)
                continue
            names.add(name)
            entry = {"image": str(path), "masks": files, "split": split, "rules": asdict(self.rules)}
            yield Source(name, entry, (str(path), *files))
        for path in alone:
            error = InputError(path, "image", "none", f"a picture of the same name in {folder / self.images}")
            yield Source(str(path), error=error)


def _pair(images: Path, masks: Path) -> tuple[list[Path], dict[str, list[Path]], list[Path]]:
    """Return the images, the masks by the stem of their image, and the masks without an image."""
    pictures, candidates = _pictures(images), _pictures(masks)
    stems = {path.stem for path in pictures}
    if images.samefile(masks):
        candidates = [path for path in pictures if _MASK_NAME.fullmatch(path.stem)[2] and _owner(path.stem, stems)]
        pictures = sorted(set(pictures).difference(candidates))
        stems = {path.stem for path in pictures}
    owned: dict[str, list[Path]] = {}
    alone = []
    for path in candidates:
        stem = path.stem if path.stem in stems else _owner(path.stem, stems)
        if stem is None:
            alone.append(path)
        else:
            owned.setdefault(stem, []).append(path)
    for folder in sorted(path for path in masks.iterdir() if path.is_dir() and not path.name.startswith(".")):
        files = _pictures(folder)
        if folder.name in stems:
            owned.setdefault(folder.name, []).extend(files)
        elif files and folder != images:
            alone.append(folder)
    return pictures, owned, alone


def _owner(stem: str, stems: set[str]) -> str | None:
    """Return the image of a mask whose name is longer than the image's, if that exists."""
    base = _MASK_NAME.fullmatch(stem)[1]
    return base if base in stems and base != stem else None


def _pictures(folder: Path) -> list[Path]:
    endings = pictures.ENDINGS + tiff.ENDINGS
    return sorted(p for p in folder.iterdir() if has_ending(p, endings) and not p.name.startswith(".") and p.is_file())
