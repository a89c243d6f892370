"""Scores of whole volumes, each object prompted by one box.

python -m custom.report.volumes CHECKPOINT NAME=CHECKPOINT ... --dataset_dir D --out DIR
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine
from scipy.ndimage import find_objects

from custom.command_line import run
from custom.data.prepared import CaseRecord, load_dataset, open_array
from custom.errors import InputError
from custom.handlers import ModalityMetric, ModalityReport
from custom.images.frame import Frame
from custom.inference.models import choose_model
from custom.inference.segmenter import BoxSegmenter
from custom.report.checkpoints import named_checkpoints
from custom.report.runs import METRICS

#: Largest outward shift of a box's sides in the plane, in pixels of the 256 frame, as in the bundle's evaluation.
MAX_SHIFT = 5


def volumes(
    *checkpoints: str,
    dataset_dir: str,
    out: str = "volumes",
    follow: bool = True,
    clip: str = "none",
    precision: str | None = None,
    device: str | None = None,
) -> None:
    """Segment the validation's volumes as ``custom.segment`` does and score the volumes as a whole.

    Each object has one box, ``object_boxes``. Into ``OUT/<checkpoint>/`` go ``cases.csv`` and ``summary.json`` as an
    evaluation writes them, so that ``custom.report`` compares checkpoints; DSC and NSD (2 mm) are three-dimensional.

    Args:
        checkpoints: each FILE or NAME=FILE, a FILE alone under its own name; FILE may be lite_medsam.
        dataset_dir: the prepared set.
        out: folder of all results.
        follow: prompt each slice by the mask before it; without it by the box as given.
        clip: the CLIP the weights were trained with.
        precision: "f32" (default) or "bf16".
        device: e.g. "cpu" or "cuda:0"; the GPU by default where there is one.

    Raises:
        InputError: no such checkpoint, two of one name, or no volume.
    """
    named = named_checkpoints(checkpoints)
    cases = [case for case in load_dataset(str(dataset_dir)).validation if case.dimension == 3]
    if not cases:
        raise InputError(dataset_dir, "validation", "no volume", "one at least")
    for name, path in named.items():
        backend = choose_model(
            checkpoint=str(path), backend="torch", clip=str(clip), precision=precision, device=device
        ).start()
        score(BoxSegmenter(backend, keep_masks=True), cases, Path(str(out)) / name, follow=follow)


def score(segmenter: BoxSegmenter, cases: Sequence[CaseRecord], folder: Path, *, follow: bool = True) -> None:
    """Segment all objects of volumes, and report the scores in a folder."""

    def step(_: Engine, case: CaseRecord) -> list[dict[str, Any]]:
        labels = open_array(case.label)
        ids, boxes = object_boxes(labels, case.case)
        found = segmenter.segment_volume(open_array(case.image), boxes, case.modality, follow=follow)
        return [
            {
                "case": case.case,
                "modality": case.modality,
                "dimension": case.dimension,
                "spacing": case.spacing,
                "pred": np.stack(list(found.masks)),
                "label": np.stack([labels == i for i in ids]),
            }
        ]

    engine = Engine(step)
    for metric in METRICS:
        ModalityMetric(metric_fn=metric).attach(engine, metric)
    ModalityReport(output_dir=folder, name=f"custom.report.volumes, {folder.name}").attach(engine)
    engine.run(cases)


def object_boxes(labels: np.ndarray, case: str) -> tuple[list[int], np.ndarray]:
    """Return the ids of a label map and their boxes.

    A box has the object's own first and last slice; its sides in the plane are moved outwards by 0 to 5 pixels of the
    256 frame, fixed by the case's name, and kept inside the image.

    Args:
        labels: DxHxW of whole numbers, 0 for the background.
        case: name of the case.

    Returns:
        N ids, ascending, and Nx6 float x_min y_min z_min x_max y_max z_max, both ends inside.

    Example:
        >>> labels = np.zeros((4, 256, 256), np.uint8)
        >>> labels[1:3, 100:120, 50:90] = 7
        >>> ids, boxes = object_boxes(labels, "liver_1")
        >>> ids, boxes.shape
        ([7], (1, 6))
    """
    places = {i: place for i, place in enumerate(find_objects(np.asarray(labels)), start=1) if place is not None}
    height, width = labels.shape[1:]
    tight = np.array(
        [[axis.start for axis in place[::-1]] + [axis.stop - 1 for axis in place[::-1]] for place in places.values()]
    )
    draw = np.random.RandomState(zlib.crc32(case.encode())).randint(0, MAX_SHIFT + 1, size=(len(tight), 2, 2))
    low, high = np.split(tight.astype(float), 2, axis=1)  # Nx6 (z y x turned to x y z) -> Nx3, Nx3
    shift = draw / Frame(height, width).scale
    low[:, :2] = np.maximum(low[:, :2] - shift[:, 0], 0)
    high[:, :2] = np.minimum(high[:, :2] + shift[:, 1], [width - 1, height - 1])
    return list(places), np.concatenate([low, high], axis=1)


def main() -> None:
    """Run the command line."""
    run(volumes, name="python -m custom.report.volumes")


if __name__ == "__main__":
    main()
