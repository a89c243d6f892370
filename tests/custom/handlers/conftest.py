"""A training in miniature: the real engines, sampler and handlers around a network of a few weights."""

import random
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ignite.metrics import MeanSquaredError
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler, ValidationHandler
from torch import nn

from custom.data.mask_table import MaskTable
from custom.data.prepared import INDEX_NAME
from custom.data.sampler import ModalityBalancedSampler
from custom.engines import step_decay_then_final
from custom.handlers import (
    BestWeights,
    EarlyStop,
    FiniteLoss,
    LossAlone,
    Restarts,
    StopOnSignal,
    TrainingCurve,
    UpdateAverage,
    WeightAverage,
)


class Noise(torch.utils.data.Dataset):
    """Items that depend only on the seed of their draw."""

    def __getitem__(self, draw):
        rng = np.random.RandomState(draw.seed)
        image = torch.from_numpy(rng.normal(size=4).astype(np.float32))
        return {"image": image, "label": image[:1] - image[1:2], "case": f"case{int(draw)}", "slice": 3}


def network():
    """Everything that has a state or draws random numbers."""
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 1))


@dataclass
class Run:
    """One process of a training."""

    trainer: SupervisedTrainer
    validator: SupervisedEvaluator
    network: nn.Module
    losses: list = field(default_factory=list)


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Return a function that builds a run in a folder, as a new process would."""
    monkeypatch.setattr(TrainingCurve, "_draw", lambda *_: None)  # slow, and tested separately
    (tmp_path / INDEX_NAME).write_text("{}")
    table = MaskTable([SimpleNamespace(modality="CT", slices=[(0, list(range(20)))])])

    def build(folder, *, resume=False, epochs=3, length=10, batch=2, accumulate=1, interval=2, patience=None, **other):
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        net = network()
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.05)
        sampler = ModalityBalancedSampler(table, length=length, seed=5)
        loader = DataLoader(Noise(), sampler=sampler, batch_size=batch, generator=torch.Generator().manual_seed(0))
        scheduler = step_decay_then_final(
            optimizer, epochs=epochs, iterations_per_epoch=len(loader), final_lr=0.01, warmup=3 * accumulate
        )
        average = WeightAverage(network=net, decay=other.get("ema"))
        rng = np.random.RandomState(0)
        images = torch.from_numpy(rng.normal(size=(4, 4)).astype(np.float32))
        validator = SupervisedEvaluator(
            device="cpu",
            val_data_loader=[{"image": i[None], "label": i[None, :1]} for i in images],
            network=average.network,
            decollate=False,
            key_val_metric={"score": MeanSquaredError(lambda o: (o["pred"], o["label"])) * -1},
            val_handlers=[BestWeights(path=folder / "model.pt", network=average.network)],
        )
        handlers = [
            FiniteLoss(),
            LossAlone(),
            ValidationHandler(1, validator),
            TrainingCurve(path=folder / "c.png", validator=validator, log=dict, scores=("score",), interval=1),
            LrScheduleHandler(scheduler, print_lr=False, epoch_level=False),
            EarlyStop(validator=validator, patience=patience),
            StopOnSignal(validator=validator),
            UpdateAverage(average=average),
            Restarts(
                save_dir=folder,
                save_dict={"model": net, "optimizer": optimizer, "lr_scheduler": scheduler, **average.saved},
                validator=validator,
                dataset_dir=other.get("dataset", tmp_path),
                config='{"lr": 0.05}',
                interval=interval,
                resume=resume,
            ),
        ]
        trainer = SupervisedTrainer(
            device="cpu",
            max_epochs=epochs,
            train_data_loader=loader,
            network=net,
            optimizer=optimizer,
            loss_function=nn.MSELoss(),
            train_handlers=handlers,
            decollate=False,
            accumulation_steps=accumulate,
        )
        return Run(trainer, validator, net)

    return build
