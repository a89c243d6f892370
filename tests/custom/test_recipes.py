"""The recipes, against the commands by which the weights in the repository were made."""

from __future__ import annotations

import ast
import json
import shlex
from string import Template

import pytest
import torch
from ignite.engine import Events
from monai.bundle import create_workflow

from custom import experiments, recipes
from custom.bundle_folder import CONFIGS
from custom.bundle_run import read_config
from custom.checkpoints import half_precision, interpolate
from custom.errors import InputError
from custom.lite_medsam import lite_medsam_path
from custom.networks import build_mcp_medsam
from custom.recipes import TRAIN, find_recipes, read_recipe

VARIABLES = {
    "O": "--clip none --freeze_image_encoder True --trained_stages 2 --val_slices 3 --val_masks 4",
    "T": "--epochs 12 --val_interval 12 --final_lr 2e-5 --lr_scheduler#every 1 --lr_scheduler#factor 0.8 --ema 0.995"
    " --loose_prob 0.1",
    "A": "--epoch_length 2400 --affine_prob 0.25 --intensity_prob 0.25",
    "B": "--epoch_length 3680 --affine_prob 0.5 --intensity_prob 0.5",
    "F": "--modality_embedding False --content_cnn False",
    "C": "--content_size 32 --unknown_prob 0.1",
    "X": "--clip none --freeze_image_encoder True --flip_prob 0.0 --bfloat16 True --batch_size 8 --ema 0.99 --warmup 20"
    " --epochs 4 --epoch_length 512 --val_interval 4 --val_slices 3 --val_masks 4 --content_size 32",
    "S": "--clip none --freeze_image_encoder True --trained_stages 1 --flip_prob 0.0 --bfloat16 True --val_slices 3"
    " --val_masks 4 --batch_size 8 --ema 0.99 --warmup 20",
}
#: Recipe -> the options of its training, without places, and the recipe whose weights it started from.
COMMANDS = {
    "fine_tuned": ("$O $T $A $F", None),
    "prompts": ("$O $T $A $C", None),
    "refined": ("$O $T $A $C --mask_refinement True", None),
    "fine_tuned_longer": ("$O $T $B $F --seed 1", "fine_tuned"),
    "refined_1": ("$O $T $B $C --seed 1", "refined"),
    "refined_2": ("$O $T $B $C --seed 2", "refined"),
    "short": ("$X", None),
    "stage_1": ("$S $F --epochs 6 --epoch_length 800 --val_interval 6", None),
    "fine_tuned_cpu": (
        "$S $F --lr 1e-4 --final_lr 2e-5 --epochs 4 --epoch_length 640 --val_interval 4 --seed 1",
        "stage_1",
    ),
}
PLACES = ("dataset_dir", "embedding_cache")


def options(name: str) -> dict[str, object]:
    """Return the options of a command as MONAI's command line takes them."""
    words = shlex.split(Template(COMMANDS[name][0]).substitute(VARIABLES))
    found = {}
    for key, value in zip(words[::2], words[1::2], strict=True):
        found[key.removeprefix("--")] = value if value == "none" else ast.literal_eval(value)
    return found


def recipe(name: str) -> recipes.Recipe:
    return read_recipe(CONFIGS / "recipes" / f"{name}.json")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_recipe_is_the_command_of_before(name):
    mine, start = recipe(name), COMMANDS[name][1]
    before, now = read_config([TRAIN], options(name)), read_config([TRAIN, *mine.files], {"seed": mine.seed})
    assert mine.stages == ([] if start is None else [f"recipes/{start}"])
    if start == "refined":
        before["mask_refinement"] = True  # of the weights it starts from
    for config in (before, now):
        for key in (*PLACES, "checkpoint"):
            config[key] = None
    assert {key: value for key, value in now.config.items() if key != "inherits_from"} == before.config


def test_every_recipe_is_checked_here():
    names = {path.stem for path in (CONFIGS / "recipes").glob("*.json")}
    assert names == {*COMMANDS, "light", "boxes", "clicks", "shipped", "small_machine"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fine_tuned", "refined"])
def test_losses_are_those_of_the_command_of_before(name, prepared_demo, tmp_path):
    limits = {"dataset_dir": str(prepared_demo.root), "device": "cpu", "num_workers": 0, "silent": True}
    limits |= {"epochs": 1, "epoch_length": 8, "batch_size": 2}
    runs = {"before": ([TRAIN], options(name)), "now": ([TRAIN, *recipe(name).files], {})}
    losses = {}
    for run, (configs, overrides) in runs.items():
        places = {"ckpt_dir": str(tmp_path / run), "output_dir": str(tmp_path / run)}
        files = [str(config) for config in configs]
        workflow = create_workflow(config_file=files, workflow_type="train", **{**overrides, **limits, **places})
        trainer, losses[run] = workflow.trainer, []

        @trainer.on(Events.ITERATION_COMPLETED)
        def keep(engine, found=losses[run]):
            found.append(engine.state.output[0]["loss"].item())

        workflow.run()
    assert len(losses["now"]) == 4 and losses["now"] == losses["before"]


def test_weights_for_boxes_are_the_commands_of_before(tmp_path):
    files = {name: tmp_path / f"{name}.pt" for name in ("recipes/refined", "recipes/refined_2")}
    for seed, file in enumerate(files.values()):
        torch.manual_seed(seed)
        file.parent.mkdir(exist_ok=True)
        torch.save(build_mcp_medsam(clip_text=False, clip_image=False).state_dict(), file)
    first, second, third = (str(tmp_path / name) for name in ("mean.pt", "shipped.pt", "model.pt"))
    interpolate.store(str(files["recipes/refined_2"]), towards=str(files["recipes/refined"]), share=0.5, out=first)
    interpolate.store(first, towards=str(lite_medsam_path()), share=0.25, out=second)
    half_precision.store(second, out=third)
    boxes = recipe("boxes")
    assert boxes.stages == ["recipes/refined_2", "recipes/refined"]
    run = experiments.Experiment(recipe=boxes, seed=0, folder=tmp_path / "run", overrides={}, stages=files)
    experiments._combine(run)
    before, now = (torch.load(file, weights_only=True) for file in (third, run.weights))
    assert before.keys() == now.keys() and all(torch.equal(before[key], now[key]) for key in before)
    assert {value.dtype for value in now.values()} >= {torch.float16, torch.float32}


def test_what_is_inherited(tmp_path):
    mine = tmp_path / "mine.json"
    mine.write_text(json.dumps({"inherits_from": "recipes/refined_2", "seed": 7}))
    found = read_recipe(mine)
    assert [file.stem for file in found.files] == ["light", "prompts", "refined", "refined_1", "refined_2", "mine"]
    assert (found.name, found.seed, found.content["epoch_length"]) == ("mine", 7, 3680)
    (other,) = find_recipes([mine], inherits_from="recipes/short")
    assert [file.stem for file in other.files] == ["short", "mine"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"inherits_from": "recipes/nothing"}', "inherits_from: found 'recipes/nothing'; allowed: ablation/"),
        ('{"inherits_from": "recipes/mine"}', "inherits_from: found recipes/mine; allowed: a recipe that does not"),
        ('{"checkpoint": "recipes/mine"}', "stages: found mine; allowed: recipes that do not start from this one"),
        (
            '{"weights": [{"_target_": "custom.networks.no"}]}',
            "weights: found 'custom.networks.no'; allowed: a _target_",
        ),
        ("[]", "file: found list; allowed: a JSON object"),
        ("{", "file: found invalid JSON"),
    ],
)
def test_bad_recipes(tmp_path, monkeypatch, content, expected):
    for folder in ("ablation", "recipes"):
        (tmp_path / folder).mkdir()
    (tmp_path / "ablation" / "other.json").write_text("{}")
    (tmp_path / "recipes" / "mine.json").write_text(content)
    monkeypatch.setattr(recipes, "CONFIGS", tmp_path)
    with pytest.raises(InputError, match=expected):
        experiments.run("recipes/mine", out=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
