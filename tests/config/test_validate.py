"""Mistakes in configurations: each is named, with what would be right and where it was set."""

from functools import cache
from pathlib import Path

import pytest

from maskpre.config import compose
from maskpre.config.library import Library
from maskpre.errors import ConfigError, UserError

# Mistakes that can be made in one command line, and what must be said of each. All of a group are composed
# together, so that each test also shows that a mistake does not hide the others.
TOGETHER = [
    {
        "experiment=colormea": "experiment: there is no configs/experiment/colormea.yaml; choose",
        "loss=mes": "loss: there is no configs/loss/mes.yaml; choose from "
        "l1, mse, normalized_l2, pairwise, pixel_l1, smooth_l1, standardized_mse, swapped_assignments; "
        "did you mean 'mse'?",
        "masking.raito=0.5": "masking.raito: RandomMasking has no 'raito'; did you mean 'ratio'?",
        "masking.grid=7": "masking.grid: the program gives RandomMasking its 'grid' itself",
        "masking.ratio='0.5'": "masking.ratio: expected a number, got '0.5'",
        "trainr.max_epochs=3": "trainr: the configuration has no 'trainr'; did you mean 'trainer'?",
        "+foo=1": "foo: the configuration has no 'foo'; it has data, inputs, masking",
        "base_lr=1e-3": "base_lr: the configuration has no 'base_lr'; did you mean 'optim.base_lr'?",
        "optim.eps=abc": "optim.eps: expected a number, got 'abc'",
        "optim.betas=[0.9]": "optim.betas: expected a list of 2: a number, a number, got a list of 1: [0.9]",
        "optim.lr_batch=2.5": "optim.lr_batch: expected a whole number, got 2.5",
        "optim.schedule.warmup_epoch=3": "WarmupCosine has no 'warmup_epoch'; did you mean 'warmup_epochs'?",
        "compile=maybe": "compile: expected true or false, got 'maybe'",
        "seed=1.5": "seed: expected a whole number, got 1.5",
        "epochs=null": "epochs: expected a number, got null",
        "max_steps=soon": "max_steps: expected a whole number or null, got 'soon'",
        "name=2024": "name: expected text or null, got 2024; quote it to make it text: \"'2024'\"",
        "encoder.hidden=replac": "encoder.hidden: expected one of drop, replace, got 'replac'; did you mean",
        "encoder.depth=6.0": "encoder.depth: expected a whole number or null, got 6.0",
        "encoder.img_size=${data.image_siz}": "${data.image_siz} can't be resolved",
        "~encoder.name": "encoder.name: ViT needs it, but it is not set; expected text",
        "trainer.precision=16-mixd": "got '16-mixd'; did you mean '16-mixed'?",
        "trainer.max_epochs=5": "the program gives Trainer its 'max_epochs' itself; set epochs instead",
        "passes.student.predictors=main": "passes.student.predictors: expected a list of text or null, "
        "got 'main'",
        "objectives.main.loss._target_=maskpre.losses.mse.MeanSqaredError": "maskpre.losses.mse has no "
        "'MeanSqaredError'; did you mean 'MeanSquaredError'?",
        "data.transform.interpolation=bicubc": "expected one of bicubic, bilinear, got 'bicubc'; did",
        "data.transform.flp=0.1": "data.transform.flp: RandomResizedCrop has no 'flp'; did you mean 'flip'?",
        "data.mean=[0.5,0.5,grey]": "data.mean.2: expected a number, got 'grey'",
        "callbacks.ema=5": "callbacks.ema: expected a Callback (a mapping with _target_) or null, got 5",
    },
    {
        "data=folder": "data.root: required, but not set; expected text",
        "data.num_workers=[2]": "data.num_workers: expected a whole number or null, got a list of 1: [2]",
        "masking._partial_=false": "RandomMasking needs _partial_: true, because the program gives",
        "maskings.main.ratio=0.5": "maskings.main: expected a Masking (a mapping with _target_), got a",
        "optim.schedule=cosine": "optim.schedule: expected a Schedule (a mapping with _target_), got",
        "predictor._target_=maskpre.predictor.linear.LinearPredictor": "predictor._target_: maskpre has no "
        "'predictor'; did you mean 'predictors'?",
        "loss._target_=maskpr.losses.mse.MeanSquaredError": "loss._target_: there is no package 'maskpr'",
        "target._target_=maskpre.losses.mse.MeanSquaredError": "target._target_: expected a Target (a "
        "mapping with _target_), got maskpre.losses.mse.MeanSquaredError",
        "inputs._target_=maskpre.ops.noise": "maskpre.ops.noise is a module, not a class or function",
        "trainer.devices={a: 1}": "trainer.devices: expected a list of whole numbers or text",
    },
]


@cache
def report(group: int) -> str:
    with pytest.raises(ConfigError) as caught:
        compose(list(TOGETHER[group]))
    return str(caught.value)


@pytest.mark.parametrize(
    ("group", "override", "message"),
    [(i, *mistake) for i, group in enumerate(TOGETHER) for mistake in group.items()],
)
def test_mistake_is_named_with_its_origin(group: int, override: str, message: str) -> None:
    _, found, after = report(group).partition(message)
    assert found, report(group)
    origin = "set in configs/data/folder.yaml" if override == "data=folder" else f"command line: {override}"
    assert origin in after.splitlines()[1]


@pytest.mark.parametrize("group", range(len(TOGETHER)))
def test_nothing_but_the_mistakes_is_reported(group: int) -> None:
    first, *lines = report(group).splitlines()
    assert first == f"{len(TOGETHER[group])} mistakes in the configuration:"
    assert sum(not line.startswith("      ") for line in lines) == len(TOGETHER[group])


def test_a_value_set_in_a_file_is_reported_with_file_and_line(tmp_path: Path) -> None:
    mine = tmp_path / "experiment" / "mine.yaml"
    mine.parent.mkdir()
    mine.write_text("# @package _global_\nmasking:\n  raito: 0.5\nsead: 1\n")
    with pytest.raises(ConfigError) as caught:
        compose(["experiment=mine"], folders=[tmp_path])
    assert {(p.path, p.origin) for p in caught.value.problems} == {
        ("masking.raito", f"set in {mine}, line 3"),
        ("sead", f"set in {mine}, line 4"),
    }


@pytest.mark.parametrize("experiment", ["mae", "sigma"])
def test_options_of_a_class_that_has_none_are_named(experiment: str) -> None:
    with pytest.raises(ConfigError, match=r"loss\.eps: MeanSquaredError has no 'eps'"):
        compose([f"experiment={experiment}", "loss.eps=0.1"])


def test_a_value_of_the_package_is_reported_with_its_file() -> None:
    with pytest.raises(ConfigError) as caught:
        compose(["optim=adamw_simmim_multistep", "optim.schedule._target_=maskpre.optim.WarmupCosine"])
    problems = {p.path: p for p in caught.value.problems}
    assert problems["optim.schedule.milestones"].origin.startswith(
        "set in configs/optim/adamw_simmim_multistep.yaml, line "
    )


def test_a_wrong_value_is_reported_once_not_at_every_reference_to_it() -> None:
    with pytest.raises(ConfigError) as caught:
        compose(["data.image_size=big"])
    assert [problem.path for problem in caught.value.problems] == ["data.image_size"]


def test_a_choice_in_a_file_that_does_not_exist_is_a_plain_message(tmp_path: Path) -> None:
    mine = tmp_path / "experiment" / "mine.yaml"
    mine.parent.mkdir()
    mine.write_text("# @package _global_\ndefaults:\n  - override /masking: rondom\n")
    with pytest.raises(UserError, match="Could not find 'masking/rondom'"):
        compose(["experiment=mine"], folders=[tmp_path])


def test_text_that_is_no_override_is_a_plain_message() -> None:
    with pytest.raises(UserError, match=r"\[0.9"):
        compose(["optim.betas=[0.9"])


def test_parts_of_files_are_no_choices() -> None:
    library = Library()
    assert "mae_vit_b" not in library.options("experiment")
    assert "paper/mae_vit_b" in library.options("experiment")
    assert not [name for name in library.options("experiment") if name.rpartition("/")[2].startswith("_")]


@pytest.mark.parametrize("experiment", Library().options("experiment"))
def test_every_experiment_is_valid(experiment: str) -> None:
    data = ["data.root=DIR"] if experiment.startswith("paper/") else []
    if experiment.startswith(("paper/maskalign", "paper/mrmae")):
        data.append("teacher.weights=null")
    if experiment.startswith("paper/sigma"):
        data.append("teacher.teacher.weights=null")
    compose([f"experiment={experiment}", *data])


@pytest.mark.parametrize("debug", Library().options("debug"))
def test_every_debug_setting_is_valid(debug: str) -> None:
    compose(["experiment=mae", f"debug={debug}"])


@pytest.mark.parametrize(
    ("command", "overrides"),
    [
        ("finetune", ["checkpoint=last.ckpt"]),
        ("probe", ["checkpoint=last.ckpt"]),
        ("export", ["checkpoint=last.ckpt", "out=FOLDER"]),
        ("visualize", ["checkpoint=last.ckpt"]),
        ("prepare", ["src=PICTURES", "dst=SHARDS"]),
    ],
)
def test_other_commands_are_checked_too(command: str, overrides: list[str]) -> None:
    compose(overrides, command)
    with pytest.raises(ConfigError) as caught:
        compose(["sed=3"], command)
    assert {problem.path for problem in caught.value.problems} == {
        "sed",
        *(override.partition("=")[0] for override in overrides),
    }
