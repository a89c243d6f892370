"""Under torchrun the processes share a folder of npz files."""

import numpy as np
import pytest

from custom.inference.monai_inferer import NpzDataset


@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_every_case_once(world, tmp_path, monkeypatch):
    for k in range(5):
        np.savez(tmp_path / f"2D_US_{k}.npz", imgs=np.full((4, 4), k, np.uint8), boxes=[[0, 0, 3, 3]])
    monkeypatch.setenv("WORLD_SIZE", str(world))
    shares = []
    for rank in range(world):
        monkeypatch.setenv("RANK", str(rank))
        shares.append([item["case"] for item in NpzDataset(tmp_path)])
    assert sorted(sum(shares, [])) == [f"2D_US_{k}" for k in range(5)]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
