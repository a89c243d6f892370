"""Modality-based data sampling: Algorithm 1 of MCP-MedSAM (Lyu et al., MELBA 2025, Section 3.3.2)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch.distributed as dist
from torch.utils.data import Sampler

from custom.data.mask_table import MaskTable
from custom.errors import InputError

STRATEGIES = ("modality", "case", "slice")


class Draw(int):
    """A mask index with the seed of the random transforms of this draw.

    The seed is fixed by (seed, epoch, place in the epoch). So an item depends neither on the worker that loads it nor
    on the items before it, and a restarted training draws what it would have drawn.

    Args:
        index: the mask.
        seed: from 0 to 2**32 - 1.
    """

    seed: int

    def __new__(cls, index: int, seed: int) -> Draw:  # noqa: D102
        draw = int.__new__(cls, index)
        draw.seed = seed
        return draw

    def __getnewargs__(self) -> tuple[int, int]:
        return int(self), self.seed  # needed to send it to a worker process


class ModalityBalancedSampler(Sampler[Draw]):
    """Draws masks with replacement, level by level and uniformly at each level.

    Strategies (the paper's Algorithm 1 and the two it is compared with in Table 5):

    - ``"modality"``: modality, then case of that modality, then slice, then mask;
    - ``"case"``: case among all cases, then slice, then mask;
    - ``"slice"``: slice among all slices, then mask.

    Only slices that hold a mask and modalities that occur in the data take part.

    All processes draw one global sequence from one generator, and process r takes the elements r, r + world, ..., so
    that together they see exactly the sequence of a single process. Every iteration uses another sequence, fixed by
    (seed, epoch). The epoch advances by one with each ``iter()``; ``set_epoch`` sets the epoch of the next iteration
    and the place to begin at, e.g. after a restart.

    Args:
        table: the masks to draw from.
        strategy: one of the three above.
        length: draws in an epoch over all processes; default: the number of cases that hold a mask. Every process
            gets ``ceil(length / num_replicas)``.
        seed: seed of the draws, the same in all processes.
        same_masks: draw the same masks in every epoch, with other seeds of their transforms, so that cached embeddings
            are computed in the first one only.
        num_replicas: number of processes; default: that of ``torch.distributed``, or 1.
        rank: number of this process; default: that of ``torch.distributed``, or 0.

    Yields:
        Flat mask indices of ``table`` (see ``MaskTable.locate``), each a ``Draw``.

    Raises:
        InputError: unknown strategy, empty table, or length, num_replicas or rank out of range.
    """

    def __init__(
        self,
        table: MaskTable,
        *,
        strategy: str = "modality",
        length: int | None = None,
        seed: int = 0,
        same_masks: bool = False,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        distributed = dist.is_available() and dist.is_initialized()
        if num_replicas is None:
            num_replicas = dist.get_world_size() if distributed else 1
        if rank is None:
            rank = dist.get_rank() if distributed else 0
        cases = np.flatnonzero(np.diff(table.slice_offset))
        if strategy not in STRATEGIES:
            raise InputError("sampler", "strategy", repr(strategy), ", ".join(STRATEGIES))
        if not len(cases):
            raise InputError("sampler", "table", "no mask", "at least one mask")
        if length is not None and length < 1:
            raise InputError("sampler", "length", length, "at least 1")
        if not 0 <= rank < num_replicas:
            raise InputError("sampler", "rank", rank, f"0 to num_replicas - 1 = {num_replicas - 1}")

        self.table, self.strategy, self.seed, self.same_masks = table, strategy, seed, same_masks
        self.num_replicas, self.rank = num_replicas, rank
        self.length = len(cases) if length is None else length
        self._epoch = self._start = 0
        # The cases grouped: by modality, or as one group of all.
        group = table.modality[cases] if strategy == "modality" else np.zeros(len(cases), np.int64)
        self._cases = cases[np.argsort(group, kind="stable")]
        self._group_size = np.unique(group, return_counts=True)[1]
        self._group_start = np.cumsum(self._group_size) - self._group_size

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Set the epoch, and so the sequence, of the next iteration; later iterations count on from there.

        Args:
            epoch: the epoch, from 0.
            start: number of draws of this process that the next iteration skips.
        """
        self._epoch, self._start = epoch, start

    def __len__(self) -> int:
        return math.ceil(self.length / self.num_replicas)

    def __iter__(self) -> Iterator[Draw]:
        epoch, start = self._epoch, self._start
        self._epoch, self._start = epoch + 1, 0
        draws, seeds = self._draw(epoch, len(self) * self.num_replicas)
        mine = slice(self.rank + start * self.num_replicas, None, self.num_replicas)
        return map(Draw, draws[mine].tolist(), seeds[mine].tolist())

    def _draw(self, epoch: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the first ``count`` mask indices of an epoch's global sequence, int64, and their seeds, uint32."""
        # One generator per level: a longer sequence begins with the shorter one, whatever the padding.
        by_draw = np.random.default_rng([self.seed, epoch]).spawn(5)[4]
        masks_of = 0 if self.same_masks else epoch
        by_group, by_case, by_slice, by_mask, _ = np.random.default_rng([self.seed, masks_of]).spawn(5)
        slice_offset, mask_offset = self.table.slice_offset, self.table.mask_offset
        if self.strategy == "slice":
            rows = by_slice.integers(slice_offset[-1], size=count)
        else:
            groups = by_group.integers(len(self._group_size), size=count)
            cases = self._cases[self._group_start[groups] + by_case.integers(self._group_size[groups])]
            rows = slice_offset[cases] + by_slice.integers(np.diff(slice_offset)[cases])
        draws = mask_offset[rows] + by_mask.integers(mask_offset[rows + 1] - mask_offset[rows])
        return draws, by_draw.integers(2**32, size=count, dtype=np.uint32)
