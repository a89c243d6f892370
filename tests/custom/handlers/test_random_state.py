import random

import numpy as np
import torch

from custom.checkpoints.files import read_checkpoint, write_checkpoint
from custom.handlers.random_state import get_random_state, set_random_state


def draw():
    return random.random(), random.gauss(0, 1), np.random.rand(), np.random.normal(), torch.rand(3).tolist()


def test_state_survives_a_file(tmp_path):
    draw()  # leaves the second of two normal numbers waiting
    write_checkpoint(tmp_path / "state.pt", {"random": get_random_state(torch.device("cpu"))})
    expected = [draw(), draw()]
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    set_random_state(read_checkpoint(tmp_path / "state.pt")["random"], torch.device("cpu"))
    assert [draw(), draw()] == expected
