"""Score masks against the truth: ``python -m custom.score PRED TRUTH --out scores.csv``."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from custom.command_line import run
from custom.errors import InputError
from custom.images.formats import dicom, endings, format_of, image_files, stem
from custom.images.image import Image
from custom.images.reading import GRID_TOLERANCE, read_labels

if TYPE_CHECKING:
    from custom.metrics.label_scores import MaskScore

COLUMNS = ("case", "label", "name", "dsc", "nsd", "hd95", "volume_pred", "volume_truth", "unit")
_WORD = re.compile(r"[._-](mask|seg|label|gt)$", re.IGNORECASE)  # as data_prep pairs files
_HEAD = ["case", "label", "name", "DSC", "NSD", "HD95", "predicted", "truth", ""]
_KINDS = ("", "", "", ".4f", ".4f", ".3f", ".6g", ".6g", "")


def score(pred: str, truth: str, out: str | None = None, image: str | None = None, tolerance: float = 2.0) -> None:
    """Compare masks with the truth: Dice (DSC), surface Dice (NSD), 95 % Hausdorff distance (HD95) and volumes.

    Masks may be in any format. They are compared by label value, on their own grid. A label that is in only one of the
    two files has DSC 0, NSD 0 and no HD95; a label in neither has no scores. The last line is the mean of the others.

    Args:
        pred: mask file, or a folder of them.
        truth: mask file, or a folder of files with the same names, which may also end in _mask, _seg, _label or _gt.
        out: CSV file for the scores.
        image: the DICOM series that SEG and RTSTRUCT objects were drawn on.
        tolerance: tolerance of the NSD in mm; in pixels for pictures and masks without a spacing.

    Raises:
        InputError: an argument or a file cannot be used.
    """
    table = None if out is None else _checked_out(Path(str(out)))
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not 0 < tolerance < math.inf:
        raise InputError("arguments", "tolerance", repr(tolerance), "a positive number")
    pairs, problems = _pairs(Path(str(pred)), Path(str(truth)))
    series = None if image is None else format_of(image).read(str(image))
    found: dict[str, list[MaskScore]] = {}
    for case, pair in pairs.items():
        try:
            found[case] = score_files(*pair, series=series, tolerance=tolerance, case=case)
        except InputError as error:
            if len(pairs) == 1 and not problems:
                raise
            problems.append(error)
    from custom.metrics.label_scores import with_absent  # takes seconds to import
    from custom.report.rows import write_rows

    scores = with_absent([row for rows in found.values() for row in rows], found)
    if table is not None:
        write_rows(table, COLUMNS, map(_cells, scores))
    print(_text(scores))
    for problem in problems:
        print(f"failed: {problem}", file=sys.stderr)
    if problems:
        sys.exit(1)


def score_files(
    pred: Path, truth: Path, *, series: Image | None = None, tolerance: float = 2.0, case: str = ""
) -> list[MaskScore]:
    """Score every label value that occurs in one of two files, or that one of them names; see also ``score``.

    Files with a grid may store its axes in another order. For a file without a grid (PNG, TIFF, npz), pixel (x, y) of
    slice z is compared with voxel x, y, z of the other.

    Args:
        pred: label map of any format.
        truth: label map of any format, on the same grid.
        series: the DICOM series that a SEG or RTSTRUCT was drawn on; other files must lie on its grid.
        tolerance: tolerance of the NSD, see ``score``.
        case: name of the case.

    Raises:
        InputError: a file cannot be read, or the grids differ.
    """
    from custom.metrics.label_scores import score_labels  # takes seconds to import

    arrays, spacing, names = _read_pair(pred, truth, series)
    return score_labels(*arrays, spacing=spacing, names=names, tolerance=tolerance, case=case)


def _read_pair(
    pred: Path, truth: Path, series: Image | None
) -> tuple[list[np.ndarray], tuple[float, ...] | None, dict[int, str]]:
    """Return both arrays, HxW or DxHxW in one order of axes, their spacing in mm if it is known, and label -> name."""
    read: dict[Path, tuple[Image, dict[int, str]]] = {}
    grid = series
    for path in sorted((truth, pred), key=lambda path: format_of(path) is not dicom):  # takes the series' grid
        read[path] = _read(path, series, grid)
        grid = read[path][0]
    maps, names = (read[truth][0], read[pred][0]), read[pred][1] | read[truth][1]
    if all(labels.geometry is not None for labels in maps):  # canonical, and on one grid
        arrays, steps = [labels.array for labels in maps], [maps[0].spacing]
    else:
        arrays = [labels.to_zyx(labels.array if labels.kind == "volume" else labels.array[0]) for labels in maps]
        steps = [labels.source_spacing[::-1] for labels in maps if labels.source_spacing is not None]
    arrays = [array[0] if array.ndim == 3 and len(array) == 1 else array for array in arrays]
    shape, steps = arrays[0].shape, [step[-arrays[0].ndim :] for step in steps]
    if arrays[1].shape != shape:
        raise InputError(pred, "shape", arrays[1].shape, f"{shape}, as {truth}")
    if len(steps) == 2 and (np.abs(np.subtract(*steps)) * shape > GRID_TOLERANCE * np.array(steps[0])).any():
        raise InputError(pred, "spacing", f"{steps[1]} mm", f"{steps[0]} mm, as {truth}")
    return arrays[::-1], steps[0] if steps else None, names


def _read(path: Path, series: Image | None, grid: Image | None) -> tuple[Image, dict[int, str]]:
    """Read a label map, which must lie on ``grid``, and the names of its labels."""
    if format_of(path) is not dicom:
        return read_labels(path, grid), {}
    if series is None:
        raise InputError(path, "image", "no image", "--image with the DICOM series that a SEG or RTSTRUCT was drawn on")
    labels, names = dicom.read_label_object(path, series)
    return replace(series, path=str(path), array=labels), names


def _pairs(pred: Path, truth: Path) -> tuple[dict[str, tuple[Path, Path]], list[InputError]]:
    """Return case -> both files, and an error for each truth that has not exactly one prediction."""
    for field, path in (("pred", pred), ("truth", truth)):
        if not os.path.exists(path):  # also False for what cannot be a path
            raise InputError("arguments", field, f"no such file {path}", "a mask, or a folder of masks")
    if pred.is_dir() != truth.is_dir():
        raise InputError("arguments", "truth", f"{truth} for {pred}", "two files or two folders")
    preds, truths = _by_case(pred), _by_case(truth)
    if not pred.is_dir():
        return {case: (pred, truth) for case in truths}, []
    counts = {case: (len(preds.get(case, ())), len(masks)) for case, masks in sorted(truths.items())}
    problems = [
        InputError(truths[case][0], "pair", f"{m} in {pred} and {n} in {truth}", "one mask of this name in each")
        for case, (m, n) in counts.items()
        if (m, n) != (1, 1)
    ]
    return {case: (preds[case][0], truths[case][0]) for case, count in counts.items() if count == (1, 1)}, problems


def _by_case(place: Path) -> dict[str, list[Path]]:
    """Return case -> its masks, in a folder; an image beside a mask whose name says so is not a mask.

    Raises:
        InputError: there are no masks.
    """
    cases: dict[str, list[Path]] = {}
    for path in image_files(place) if place.is_dir() else [place]:
        cases.setdefault(_WORD.sub("", stem(path)), []).append(path)
    if not cases:
        raise InputError(place, "masks", "none", f"files that end in {', '.join(endings())}")
    return {case: [path for path in paths if stem(path) != case] or paths for case, paths in cases.items()}


def _checked_out(path: Path) -> Path:
    folder = next(place for place in path.absolute().parents if place.exists())
    if path.suffix.lower() != ".csv" or path.is_dir() or not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise InputError("arguments", "out", path, "a CSV file in a folder that can be written")
    return path


def _text(scores: Sequence[MaskScore]) -> str:
    """Return the scores as a table, followed by the means over the values that are not missing."""
    columns = [[row[k] for row in scores if row[k] == row[k]] for k in (3, 4, 5)]
    means = _cells([np.mean(column) if column else math.nan for column in columns], _KINDS[3:6])
    rows = [_HEAD, *map(_cells, scores), ["mean", "", "", *means, "", "", ""]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    text = ["  ".join(f"{c:{'<' if k in (0, 2, 8) else '>'}{widths[k]}}" for k, c in enumerate(row)) for row in rows]
    return "\n".join(line.rstrip() for line in text)


def _cells(values: Iterable[object], kinds: Sequence[str] = _KINDS) -> list[str]:
    return ["" if value != value else format(value, kind) for value, kind in zip(values, kinds, strict=True)]


def main() -> None:
    """Run the command line; on bad input it ends with one line."""
    run(score, name="python -m custom.score")


if __name__ == "__main__":
    main()
