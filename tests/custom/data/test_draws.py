import copy
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.transforms import Compose, RandFlipd, RandGaussianNoised

from custom.data.datasets import MaskDataset
from custom.data.mask_table import MaskTable
from custom.data.sampler import Draw, ModalityBalancedSampler
from custom.transforms import LoadSliced

TABLE = MaskTable([SimpleNamespace(modality="CT", slices=[(0, list(range(1, 40)))])])


def draws(epoch=0, start=0, **options):
    sampler = ModalityBalancedSampler(TABLE, length=60, **options)
    sampler.set_epoch(epoch, start)
    return [(int(draw), draw.seed) for draw in sampler]


def test_every_draw_has_its_own_seed():
    seeds = [seed for epoch in range(20) for _, seed in draws(epoch)]
    assert len(set(seeds)) == 1200 and 0 <= min(seeds) and max(seeds) < 2**32
    assert draws(3) == draws(3) != draws(4) and draws(seed=1) != draws()


@pytest.mark.parametrize("start", [0, 1, 17, 60])
def test_iteration_from_within_an_epoch(start):
    sampler = ModalityBalancedSampler(TABLE, length=60)
    sampler.set_epoch(2, start)
    assert len(sampler) == 60
    assert list(sampler) == [index for index, _ in draws(2)[start:]]
    assert [(int(draw), draw.seed) for draw in sampler] == draws(3)


@pytest.mark.parametrize("start", [0, 11])
def test_ranks_share_the_seeds_too(start):
    parts = [draws(1, start, num_replicas=3, rank=rank) for rank in range(3)]
    together = [parts[i % 3][i // 3] for i in range(60 - 3 * start)]
    assert together == draws(1)[3 * start :]


@pytest.mark.parametrize("send", [copy.copy, copy.deepcopy, lambda draw: pickle.loads(pickle.dumps(draw))])
def test_draw_arrives_as_it_was(send):
    arrived = send(Draw(7, 123))
    assert arrived == 7 and type(arrived) is Draw and arrived.seed == 123


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_items_do_not_depend_on_workers_or_place(prepared_demo, workers):
    steps = [LoadSliced(["image", "label"]), RandFlipd("image", 0.5, 0), RandGaussianNoised("image", prob=1.0)]
    dataset = MaskDataset(prepared_demo.training, Compose(steps))
    sampler = ModalityBalancedSampler(dataset.table, length=6)
    wanted = [dataset[Draw(*draw)]["image"] for draw in [(int(d), d.seed) for d in sampler]]
    sampler.set_epoch(0, start=2)
    loader = DataLoader(dataset, sampler=sampler, num_workers=workers)
    for item, expected in zip(loader, wanted[2:], strict=True):
        torch.testing.assert_close(item["image"][0], expected, rtol=0, atol=0)
    again = dataset[Draw(0, 5)]["image"], dataset[Draw(0, 6)]["image"]
    assert not np.array_equal(*again)


def test_the_same_masks_in_every_epoch_with_other_seeds():
    first, second = (draws(epoch, same_masks=True) for epoch in (0, 1))
    assert [index for index, _ in first] == [index for index, _ in second] == [index for index, _ in draws(0)]
    assert not {seed for _, seed in first} & {seed for _, seed in second}
    assert first == draws(0) and [seed for _, seed in second] == [seed for _, seed in draws(1)]
    assert [index for index, _ in draws(1)] != [index for index, _ in second]


def test_the_same_masks_after_a_restart_and_in_several_processes():
    assert draws(3, start=9, same_masks=True) == draws(3, same_masks=True)[9:]
    parts = [draws(2, num_replicas=3, rank=rank, same_masks=True) for rank in range(3)]
    assert [parts[i % 3][i // 3] for i in range(60)] == draws(2, same_masks=True)
