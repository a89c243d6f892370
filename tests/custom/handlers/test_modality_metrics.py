import csv
import json
import multiprocessing
import warnings

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from ignite.exceptions import NotComputableError
from monai.bundle import ConfigParser
from monai.engines import IterationEvents

from custom.errors import InputError
from custom.handlers import ModalityMetric, ModalityReport
from custom.metrics import dice_score, surface_dice


def item(case, modality, dice_of_masks, *, number=None, dimension=2, spacing=None):
    """An item whose masks have given Dice scores, each k/8: a label of 8 pixels, a prediction of 8 that shares k."""
    label, pred = torch.zeros(2, len(dice_of_masks), 8, 8, dtype=torch.bool)
    label[:, 3] = True
    for mask, dice in zip(pred, dice_of_masks, strict=True):
        shared = round(8 * dice)
        mask[3, :shared] = True
        mask[7, shared:] = True
    extra = {} if number is None else {"slice": number}
    return {
        "case": case,
        "modality": modality,
        "dimension": dimension,
        "spacing": spacing,
        "pred": pred,
        "label": label,
        **extra,
    }


def two_ranks():
    """The same items as one list and as two ranks' lists, one item in both."""
    ct = [item("ct1", "CT", [k / 8], number=z, dimension=3, spacing=(5.0, 1.0, 1.0)) for z, k in enumerate((2, 4, 8))]
    others = [item("mr1", "MR", [0.5, 1.0]), item("mr2", "MR", [0.25]), item("f1", "Fundus", [1.0])]
    return [*ct, *others], [[ct[0], ct[1], others[0]], [ct[2], ct[0], others[1], others[2], others[0]]]


def test_averages_masks_then_slices_then_cases_then_modalities():
    metric = ModalityMetric(metric_fn="dsc")
    metric.update(two_ranks()[0][:4])
    metric.update(two_ranks()[0][4:])
    ct, mr = (25 + 50 + 100) / 3, [75.0, 25.0]
    assert [(c.case, c.modality, c.n_masks) for c in metric.per_case] == [
        ("ct1", "CT", 3),
        ("mr1", "MR", 2),
        ("mr2", "MR", 1),
        ("f1", "Fundus", 1),
    ]
    assert [c.score for c in metric.per_case] == pytest.approx([ct, *mr, 100])
    summary = metric.summary()
    assert list(summary["per_modality"]) == ["CT", "MR", "Fundus"]
    assert summary["per_modality"]["CT"] == pytest.approx({"n": 1, "mean": ct, "std": 0})
    assert summary["per_modality"]["MR"] == pytest.approx({"n": 2, "mean": 50, "std": 25})
    means = [ct, 50, 100]
    assert metric.compute() == pytest.approx(np.mean(means)) == pytest.approx(summary["mean"])
    assert summary["std"] == pytest.approx(np.std(means))


def test_slices_without_number_all_count_and_repeated_ones_once():
    metric = ModalityMetric(metric_fn="dsc")
    metric.update([item("a", "CT", [0.5]), item("a", "CT", [1.0])])
    assert metric.compute() == 75
    metric.reset()
    metric.update(
        [item("a", "CT", [0.5], number=3), item("a", "CT", [1.0], number=4), item("a", "CT", [1.0], number=4)]
    )
    assert metric.compute() == 75


@pytest.mark.parametrize(
    ("dimension", "spacing", "used"),
    [
        (2, (1.0, 0.1, 0.1), None),
        (2, None, None),
        (3, None, None),
        (3, (5.0, 0.4, 0.9), (0.4, 0.9)),
        (3, [torch.tensor(5.0), torch.tensor(0.4), torch.tensor(0.9)], (0.4, 0.9)),
    ],
)
def test_unit_of_the_nsd_tolerance(dimension, spacing, used):
    entry = item("a", "CT", [0.25, 0.5], dimension=dimension, spacing=spacing)
    metric = ModalityMetric(metric_fn="nsd")
    metric.update([entry])
    expected = surface_dice(entry["pred"], entry["label"], spacing=used).mean()
    assert metric.compute() == pytest.approx(100 * expected)


def test_nsd_of_volumes_uses_all_three_spacings():
    rng = np.random.default_rng(0)
    pred, label = torch.from_numpy(rng.random((2, 2, 5, 8, 8)) > 0.8)
    entry = {**item("a", "CT", [1.0], dimension=3, spacing=(2.5, 0.4, 0.9)), "pred": pred, "label": label}
    metric = ModalityMetric(metric_fn="nsd")
    metric.update([entry])
    assert metric.compute() == pytest.approx(100 * surface_dice(pred, label, spacing=(2.5, 0.4, 0.9)).mean())


def test_wrong_input():
    with pytest.raises(InputError, match="dsc, nsd"):
        ModalityMetric(metric_fn="iou")
    metric = ModalityMetric(metric_fn="dsc")
    with pytest.raises(NotComputableError):
        metric.compute()
    with pytest.raises(InputError, match="at least one mask"):
        metric.update([item("a", "CT", [])])
    metric.update([item("a", "CT", [1.0]), item("a", "MR", [1.0])])
    with pytest.raises(InputError, match="CT and MR"):
        metric.compute()
    with pytest.raises(InputError, match="no ModalityMetric"):
        ModalityReport(output_dir=".").attach(Engine(lambda *_: None))


def run_rank(rank, store, queue):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    metric = ModalityMetric(metric_fn="dsc")
    metric.update(two_ranks()[1][rank])
    queue.put((rank, metric.compute(), [(c.case, c.n_masks, c.score) for c in metric.per_case]))
    torch.distributed.destroy_process_group()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_two_processes_agree_with_one(tmp_path):
    single = ModalityMetric(metric_fn="dsc")
    single.update(two_ranks()[0])
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=run_rank, args=(rank, tmp_path / "store", queue)) for rank in range(2)]
    for process in processes:
        process.start()
    results = dict((rank, rest) for rank, *rest in (queue.get(timeout=60) for _ in processes))
    for process in processes:
        process.join(timeout=60)
    assert results[0] == results[1]
    assert results[0] == [single.compute(), [(c.case, c.n_masks, c.score) for c in single.per_case]]


class Shift(torch.nn.Module):
    """Predicts the image moved down by one pixel."""

    def forward(self, image):
        return image.roll(1, dims=-2)


def predict(engine, batch):
    """An iteration of an evaluator with boxes: the output has what the metric needs."""
    keys = ("case", "modality", "dimension", "spacing", "label")
    engine.state.output = {key: batch[key] for key in keys} | {"pred": engine.network(batch["image"]) > 0.5}
    engine.fire_event(IterationEvents.MODEL_COMPLETED)
    return engine.state.output


def make_dataset():
    rng = np.random.default_rng(0)
    data = []
    for i, modality in enumerate(["MR", "CT", "CT", "US", "CT"]):
        label = torch.zeros(2, 32, 32, dtype=torch.bool)
        for mask in label:
            y, x, h, w = rng.integers(3, 12, size=4)
            mask[y : y + h, x : x + w] = True
        entry = {"image": label.float(), "label": label, "case": f"case{i}", "modality": modality}
        volume = modality in ("CT", "MR")
        data.append({**entry, "dimension": 3 if volume else 2, "spacing": (5.0, 0.4 + i, 1.0)})
    return data


CONFIG = {
    "evaluator": {
        "_target_": "monai.engines.SupervisedEvaluator",
        "device": "$torch.device('cpu')",
        "val_data_loader": {"_target_": "monai.data.DataLoader", "dataset": "@dataset", "batch_size": 2},
        "network": "@network",
        "iteration_update": "@iteration",
        "key_val_metric": {
            "val_dsc": {
                "_target_": "custom.handlers.ModalityMetric",
                "metric_fn": "dsc",
                "output_transform": "$lambda x: x",
            }
        },
        "additional_metrics": {
            "val_nsd": {
                "_target_": "custom.handlers.ModalityMetric",
                "metric_fn": "nsd",
                "output_transform": "$lambda x: x",
            }
        },
        "val_handlers": [
            {"_target_": "monai.handlers.TensorBoardStatsHandler", "summary_writer": "@writer", "iteration_log": False},
            {"_target_": "custom.handlers.ModalityReport", "output_dir": "@output_dir", "name": "report"},
        ],
    },
}


class Writer:
    """Stands in for TensorBoard's writer."""

    def __init__(self):
        self.scalars = {}

    def add_scalar(self, name, value, step):
        self.scalars[name] = value

    def flush(self):
        pass

    def close(self):
        pass


def test_evaluator_from_configuration(tmp_path, capsys):
    data, writer = make_dataset(), Writer()
    objects = {"dataset": data, "network": Shift(), "iteration": predict, "writer": writer}
    parser = ConfigParser({**CONFIG, "imports": ["$import torch"], "output_dir": str(tmp_path / "out"), **objects})
    evaluator = parser.get_parsed_content("evaluator")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator.run()

    scores = {}
    for entry in data:
        pred = Shift()(entry["image"]) > 0.5
        spacing = entry["spacing"][1:] if entry["dimension"] == 3 else None
        dsc, nsd = dice_score(pred, entry["label"]), surface_dice(pred, entry["label"], spacing=spacing)
        scores[entry["case"]] = (100 * dsc.mean(), 100 * nsd.mean())

    rows = list(csv.DictReader((tmp_path / "out/cases.csv").open()))
    assert [(r["case"], r["modality"], r["n_masks"]) for r in rows] == [
        ("case1", "CT", "2"),
        ("case2", "CT", "2"),
        ("case4", "CT", "2"),
        ("case0", "MR", "2"),
        ("case3", "US", "2"),
    ]
    for row in rows:
        assert (float(row["dsc"]), float(row["nsd"])) == pytest.approx(scores[row["case"]], abs=1e-5)

    summary = json.loads((tmp_path / "out/summary.json").read_text())
    groups = {"CT": ["case1", "case2", "case4"], "MR": ["case0"], "US": ["case3"]}
    assert list(summary["per_modality"]) == list(groups)
    for column, name in enumerate(("dsc", "nsd")):
        means = []
        for modality, cases in groups.items():
            values = [scores[case][column] for case in cases]
            means.append(np.mean(values))
            entry = summary["per_modality"][modality]
            assert entry["n"] == len(cases)
            assert (entry[name], entry[f"{name}_std"]) == pytest.approx((np.mean(values), np.std(values)))
            assert evaluator.state.metrics[f"{name}_{modality}"] == entry[name]
            assert writer.scalars[f"{name}_{modality}"] == entry[name]
        assert summary["mean"][name] == evaluator.state.metrics[f"val_{name}"] == pytest.approx(np.mean(means))
        assert summary["mean"][f"{name}_std"] == pytest.approx(np.std(means))
    assert evaluator.state.best_metric == summary["mean"]["dsc"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["cases.csv", "summary.json"]

    table = capsys.readouterr().out.splitlines()[-5:]
    assert [line.split()[0] for line in table] == ["modality", "CT", "MR", "US", "mean"]
    assert len({len(line) for line in table}) == 1


def test_report_of_one_metric(tmp_path):
    engine = Engine(lambda _, batch: [batch])
    ModalityMetric(metric_fn="dsc").attach(engine, "dice")
    ModalityReport(output_dir=tmp_path).attach(engine)
    engine.run([item("a", "PET", [0.5])], max_epochs=2)
    assert (tmp_path / "cases.csv").read_text() == "case,modality,n_masks,dsc\na,PET,1,50.000000\n"
    assert json.loads((tmp_path / "summary.json").read_text()) == {
        "per_modality": {"PET": {"n": 1, "dsc": 50.0, "dsc_std": 0.0}},
        "mean": {"dsc": 50.0, "dsc_std": 0.0},
    }


def test_folder_that_cannot_be_written_is_told_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    seen = []
    engine = Engine(lambda _, batch: seen.append(batch) or [batch])
    ModalityMetric(metric_fn="dsc").attach(engine, "dice")
    ModalityReport(output_dir=tmp_path / "file").attach(engine)
    with pytest.raises(OSError, match="file"):
        engine.run([item("a", "PET", [0.5])])
    assert not seen


def test_nothing_is_left_of_finding_out(tmp_path):
    engine = Engine(lambda _, batch: (engine.terminate(), [batch])[1])
    ModalityMetric(metric_fn="dsc").attach(engine, "dice")
    ModalityReport(output_dir=tmp_path / "out").attach(engine)
    engine.run([item("a", "PET", [0.5])])
    assert list((tmp_path / "out").glob("**/.*")) == []
