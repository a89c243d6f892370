"""Join objects that were segmented each on its own, so that no mask depends on the other objects."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from custom.inference.label_map import Canvas
from custom.inference.segmenter import Segmentation


def join_objects(parts: Sequence[Segmentation], overlap: str) -> Segmentation:
    """Join segmentations of one object each into one of N objects, as if they had been segmented together.

    Args:
        parts: of a ``BoxSegmenter`` with ``keep_logits``, at least one, all of the same image.
        overlap: which mask gets a pixel that several cover; see ``Canvas``.

    Raises:
        InputError: an unknown rule for overlaps.
    """
    canvas = Canvas(parts[0].labels.shape, len(parts), overlap, keep_masks=True)
    members = defaultdict(list)
    for k, part in enumerate(parts):
        for z in part.masks.slices(0):
            members[z].append(k)
    for z, numbers in members.items():
        for k in numbers:
            canvas.paint(k + 1, parts[k].masks.logits(0, z), z)
        canvas.finish(z)
    known = [part.probabilities for part in parts if part.probabilities is not None]
    return Segmentation(
        labels=canvas.labels,
        masks=canvas.masks,
        iou=np.concatenate([part.iou for part in parts]),
        modality=Counter(part.modality for part in parts).most_common(1)[0][0],
        probabilities=np.concatenate(known) if known else None,
        seconds={stage: sum(part.seconds[stage] for part in parts) for stage in parts[0].seconds},
    )
