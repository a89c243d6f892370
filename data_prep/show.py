"""A contact sheet of a prepared set: some slices of every modality with their masks and boxes."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import find_objects

from custom.atomic_write import write_whole
from custom.data.prepared import CaseRecord, load_dataset, read_slice
from custom.errors import InputError
from custom.inference.overlay import draw_overlay

TILE = 192
_CAPTION, _HEADING, _GAP = 16, 22, 4  # heights of the lines of text, and the space around tiles, in pixels
_TEXT, _BACKGROUND = (230, 230, 230), (24, 24, 24)


def show(
    dataset_dir: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    per_modality: int = 8,
    seed: int = 0,
    columns: int = 8,
) -> Path:
    """Draw one PNG: for each modality a heading and some tiles of 192 x 192 pixels.

    A tile is one whole slice with foreground of one case, resized; every mask that the index lists in it is
    tinted and outlined, with its tight box. Below it: the case, the slice of a volume, and the number of masks.

    Args:
        dataset_dir: folder of the prepared set.
        out: the PNG file; folders are created if needed.
        per_modality: largest number of cases of each modality, from as many data sets as possible.
        seed: a different seed draws different cases and slices.
        columns: tiles side by side.

    Returns:
        ``out``.

    Raises:
        InputError: the set cannot be read, a number is below 1, or ``out`` cannot be written.
    """
    for name, value in (("per_modality", per_modality), ("columns", columns)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError("arguments", name, repr(value), "a whole number of at least 1")
    out, prepared = Path(out), load_dataset(dataset_dir)
    cases = prepared.training + prepared.validation
    bands = []
    for modality in prepared.modalities:
        mine = [c for c in cases if c.modality == modality]
        drawn = _draw_cases(mine, per_modality, f"{seed}/{modality}")
        bands.append(_band(f"{modality}: {len(mine)} cases", [_tile(case, seed) for case in drawn], columns))
    if not bands:
        raise InputError(dataset_dir, "cases", "none", "at least one case")
    sheet = Image.fromarray(np.concatenate(bands))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, lambda file: sheet.save(file, format="PNG"))
    except OSError as error:
        raise InputError(out, "out", error.strerror or error, "a file that can be written") from error
    return out


def _draw_cases(cases: Sequence[CaseRecord], most: int, name: str) -> list[CaseRecord]:
    """Draw cases, one of each data set in turn, the same for the same name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    turns: dict[str, int] = {}
    ranked = []
    for n in rng.permutation(len(cases)):
        turn = turns[cases[n].dataset] = turns.get(cases[n].dataset, -1) + 1
        ranked.append((turn, len(ranked), cases[n]))
    return [case for _, _, case in sorted(ranked, key=lambda item: item[:2])[:most]]


def _tile(case: CaseRecord, seed: int) -> Image.Image:
    """Draw one slice of a case with its masks and a caption."""
    rng = np.random.default_rng([seed, zlib.crc32(case.case.encode())])
    z, ids = case.slices[rng.integers(len(case.slices))]
    label = read_slice(case.label, z)
    numbers = np.zeros(np.iinfo(label.dtype).max + 1, np.int32)
    numbers[list(ids)] = np.arange(1, len(ids) + 1)
    masks = numbers[label]  # HxW, value k for the k-th id listed
    found = find_objects(masks, len(ids))
    if None in found:
        raise InputError(case.label, f"slice {z}", f"no pixel of id {ids[found.index(None)]}", "the ids listed")
    boxes = np.array([[x.start, y.start, x.stop - 1, y.stop - 1] for y, x in found])
    height, width = (max(1, round(n * TILE / max(label.shape))) for n in label.shape)
    scale = np.array([width / label.shape[1], height / label.shape[0]] * 2)
    small = Image.fromarray(read_slice(case.image, z)).resize((width, height), Image.Resampling.BILINEAR)
    nearest = Image.fromarray(masks).resize((width, height), Image.Resampling.NEAREST)
    drawn = draw_overlay(np.asarray(small), np.asarray(nearest), ((boxes + 0.5) * scale - 0.5).clip(0))
    tile = Image.new("RGB", (TILE + 2 * _GAP, TILE + _CAPTION + _GAP), _BACKGROUND)
    tile.paste(Image.fromarray(drawn), (_GAP + (TILE - width) // 2, _GAP + (TILE - height) // 2))
    place = f" z {z}" if case.dimension == 3 else ""
    counted = f"{place}, {len(ids)} mask{'s' * (len(ids) != 1)}"
    _write(tile, (_GAP, TILE + _GAP + 1), case.case, counted, 10)
    return tile


def _band(heading: str, tiles: Sequence[Image.Image], columns: int) -> np.ndarray:
    """Put a heading and tiles in rows: (height, width, 3) uint8, as wide for every modality."""
    width, height = tiles[0].size
    band = Image.new("RGB", (columns * width, _HEADING + math.ceil(len(tiles) / columns) * height), _BACKGROUND)
    _write(band, (_GAP, _GAP), heading, "", 14)
    for n, tile in enumerate(tiles):
        band.paste(tile, (n % columns * width, _HEADING + n // columns * height))
    return np.asarray(band)


def _write(canvas: Image.Image, place: tuple[int, int], name: str, rest: str, size: int) -> None:
    """Write ``name + rest``; a name that is too long loses its start, since its end is more specific."""
    font, pen = ImageFont.load_default(size), ImageDraw.Draw(canvas)
    room, cut = canvas.width - 2 * place[0], 0
    while pen.textlength(text := ("..." if cut else "") + name[cut:] + rest, font) > room and cut < len(name):
        cut += 1
    pen.text(place, text, _TEXT, font)
