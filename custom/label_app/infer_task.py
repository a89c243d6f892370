"""The two tasks of the client's list: objects on one slice, and objects through a volume."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from custom.label_app.service import CHOICES, SegmentationService, answer, write_mask_file

_DESCRIPTIONS = {
    2: "MCP-MedSAM: what a box and clicks mark, on one slice or picture",
    3: "MCP-MedSAM: what a box and clicks mark, followed from slice to slice",
}


class BoxTask(InferTask):
    """Segments by boxes and clicks.

    Its type is "deepgrow": for it 3D Slicer sends its ROI, and all clients send the clicks of one object as
    ``foreground`` and ``background``. For "deepedit" they send clicks under the names of all labels.

    Args:
        service: shared by all tasks, so that they share its caches.
        dimension: 2 or 3.
        labels: names of objects for the client's list.
    """

    def __init__(self, service: SegmentationService, *, dimension: int, labels: list[str]) -> None:
        super().__init__(
            type=InferType.DEEPGROW,
            labels=labels,
            dimension=dimension,
            description=_DESCRIPTIONS[dimension],
            config={"modality": list(CHOICES)},
        )
        self.service = service

    def is_valid(self) -> bool:
        """Return True: the task can always be used."""
        return True

    def __call__(self, request: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """Segment ``request["image"]``, a path; return the file with the masks and the JSON content.

        There is no file if MONAI Label's ``result_write_to_file`` is false.

        Raises:
            InputError: the request cannot be answered.
        """
        result = self.service.segment(Path(request["image"]), request, dimension=self.dimension)
        start, file, report = time.perf_counter(), None, answer(result)
        if request.get("save_label") or request.get("result_write_to_file", True):
            file = str(write_mask_file(result, request))
        latencies = report["latencies"] | {"write": round(time.perf_counter() - start, 4)}
        latencies["total"] = round(sum(latencies.values()), 4)
        return file, {**report, "latencies": latencies}
