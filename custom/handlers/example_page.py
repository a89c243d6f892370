"""A page of examples from an evaluation: a typical slice and the worst slice of every modality."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from PIL import Image, ImageDraw, ImageFont

from custom.atomic_write import write_whole
from custom.handlers.prediction_images import prediction_picture
from custom.metrics import dice_score
from custom.modalities import MODALITIES

PAGE_FILE = "examples.png"
_KEPT = 64  # slices of a modality among which the typical one is chosen; more pictures would fill the memory
_TILE = (300, 150)  # width and height of a prediction beside the truth, pixels
_CAPTION, _GAP, _BANDS = 18, 6, 2
_TEXT, _BACKGROUND = (230, 230, 230), (24, 24, 24)


@dataclass(frozen=True)
class Example:
    """One evaluated slice: mean DSC of its masks in percent, its name, and its picture, HxWx3 uint8."""

    dsc: float
    name: str
    picture: np.ndarray


class ExamplePage:
    """Write ``examples.png`` at the end of an evaluation.

    For each modality it shows the slice of median DSC among the first 64, and the worst of all; each with the
    prediction on the left, the truth on the right, and the boxes of the prompt. Process 0 writes its own slices.

    Args:
        output_dir: folder of the file, created if missing.
    """

    def __init__(self, *, output_dir: str | os.PathLike[str]) -> None:
        self.output_dir = Path(output_dir)

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator whose outputs have a "result", see ``custom.transforms.RestoreMasksd``."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration_completed)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._completed)

    def _started(self, _: Engine) -> None:
        self._first: dict[str, list[Example]] = {}
        self._worst: dict[str, Example] = {}

    def _iteration_completed(self, engine: Engine) -> None:
        for batch, output in zip(engine.state.batch, engine.state.output, strict=True):
            result = output["result"]
            dsc = 100 * float(dice_score(result["pred"], result["label"]).mean())
            first, worst = self._first.setdefault(result["modality"], []), self._worst.get(result["modality"])
            if len(first) == _KEPT and worst.dsc <= dsc:
                continue
            picture = Image.fromarray(prediction_picture(output, batch["boxes"]))
            picture = np.asarray(picture.resize(_TILE, Image.Resampling.LANCZOS))
            example = Example(dsc, f"{result['case']}, z {result['slice']}", picture)
            if len(first) < _KEPT:
                first.append(example)
            if worst is None or dsc < worst.dsc:
                self._worst[result["modality"]] = example

    def _completed(self, _: Engine) -> None:
        if idist.get_rank() != 0 or not self._first:
            return
        rows = []
        for modality in (name for name in MODALITIES if name in self._first):
            ranked = sorted(self._first[modality], key=lambda example: example.dsc)
            rows.append((modality, ranked[len(ranked) // 2], self._worst[modality]))
        page = Image.fromarray(draw_page(rows))
        self.output_dir.mkdir(parents=True, exist_ok=True)
        write_whole(self.output_dir / PAGE_FILE, lambda file: page.save(file, format="PNG", optimize=True))


def draw_page(rows: list[tuple[str, Example, Example]]) -> np.ndarray:
    """Draw the examples of each modality, two modalities side by side.

    Args:
        rows: modality, median example, worst example.

    Returns:
        HxWx3 uint8.
    """
    width, height = 2 * _TILE[0] + 3 * _GAP, _TILE[1] + _CAPTION + _GAP
    page = Image.new("RGB", (_BANDS * width, math.ceil(len(rows) / _BANDS) * height), _BACKGROUND)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    for n, (modality, *examples) in enumerate(rows):
        top = n // _BANDS * height
        for k, (kind, example) in enumerate(zip(("median", "worst"), examples, strict=True)):
            left = n % _BANDS * width + _GAP + k * (_TILE[0] + _GAP)
            pen.text((left, top + 2), f"{modality}, {kind}: DSC {example.dsc:.1f}", _TEXT, font)
            page.paste(Image.fromarray(example.picture), (left, top + _CAPTION))
    return np.asarray(page)
