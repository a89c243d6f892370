"""Report what the network predicts about its own masks beside the truth, one line per mask."""

from __future__ import annotations

import csv
import os
from io import StringIO
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events

from custom.atomic_write import write_whole
from custom.images.boxes import tight_boxes
from custom.losses.mcp_loss import mask_iou
from custom.modalities import MODALITIES
from custom.networks import MCPMedSAM

MASKS_FILE = "masks.csv"
COLUMNS = (
    "case",
    "modality",
    "slice",
    "label",
    "extent",
    "predicted_iou",
    "true_iou",
    "predicted_modality",
    "probability",
)


class MaskReport:
    """Write ``masks.csv`` at the end of an evaluation: predicted and true IoU, and modality, of every mask.

    The evaluator asks the network for mask logits only. The decoder computes the rest at the same time, and this
    handler takes it from there, so that engine, metrics and postprocessing need no change.

    The extent is the longer side of the object's tight box as a share of the image's longer side. The true IoU is that
    of the masks at native size, as the metrics see them. The last two columns are the modality the classifier finds
    most probable and its probability; they are empty if the network has no modality prompt.
    Under ``torch.distributed`` the lines of all processes are gathered, and process 0 writes.

    Args:
        output_dir: folder of the file, created if missing.
        network: the network that is evaluated.
    """

    def __init__(self, *, output_dir: str | os.PathLike[str], network: MCPMedSAM) -> None:
        self.output_dir, self.network = Path(output_dir), network

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator whose outputs have a "result", see ``custom.transforms.RestoreMasksd``."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration_completed)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._completed)

    def _started(self, _: Engine) -> None:
        self._lines: dict[tuple[str, int, int], tuple[object, ...]] = {}  # case, slice, label -> its line
        self._hook = self.network.mask_decoder.register_forward_hook(self._keep)

    def _keep(self, _module: Any, _inputs: Any, decoded: Any) -> None:
        self._iou, self._modality = decoded.iou, decoded.modality_logits

    def _iteration_completed(self, engine: Engine) -> None:
        results = [output["result"] for output in engine.state.output]
        ious = self._iou.float().cpu().split([len(result["label"]) for result in results])  # R -> N an image
        modalities = self._predicted_modalities()
        for batch, result, predicted in zip(engine.state.batch, results, ious, strict=True):
            true = mask_iou(result["pred"][None].float(), result["label"][None].float())[0]  # NxHxW -> 1xNxHxW -> N
            values = zip(_extents(result["label"]), predicted.tolist(), true.tolist(), strict=True)
            for label, numbers in zip(batch["label_ids"], values, strict=True):
                key = (str(result["case"]), result["slice"], int(label))
                numbers = [f"{number:.6f}" for number in numbers]
                self._lines[key] = (key[0], result["modality"], *key[1:], *numbers, *next(modalities))

    def _predicted_modalities(self) -> Any:
        """Yield name and probability of the most probable modality of each row."""
        if self._modality is None:
            while True:
                yield "", ""
        best = torch.softmax(self._modality.float(), dim=1).max(dim=1)
        for value, index in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            yield MODALITIES[index], f"{value:.6f}"

    def _completed(self, _: Engine) -> None:
        self._hook.remove()
        parts = [self._lines]
        if idist.get_world_size() > 1:
            parts = [None] * idist.get_world_size()
            dist.all_gather_object(parts, self._lines)
        if idist.get_rank() != 0:
            return
        # The lowest rank wins if several processes had the same item.
        lines = {key: line for part in reversed(parts) for key, line in part.items()}
        text = StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(sorted(lines.values(), key=lambda line: (MODALITIES.index(line[1]), *line[0:1], *line[2:4])))
        self.output_dir.mkdir(parents=True, exist_ok=True)
        write_whole(self.output_dir / MASKS_FILE, lambda file: file.write(text.getvalue().encode()))


def _extents(masks: torch.Tensor) -> list[float]:
    """Return the longer side of each mask's tight box as a share of the image's: NxHxW -> N."""
    boxes = tight_boxes(masks.numpy())
    return ((boxes[:, 2:] - boxes[:, :2] + 1).max(axis=1) / max(masks.shape[1:])).tolist()
