import sys
from pathlib import Path

import pytest
from hydra.utils import instantiate

from maskpre.config import compose
from maskpre.errors import UserError
from maskpre.evaluation.classifier import ClassifierRecipe
from maskpre.finetune import main
from maskpre.optim import LrRun

RECIPES = sorted(path.stem for path in Path(__file__).parents[1].glob("configs/recipe/[!_]*.yaml"))

# As the recipes' headers write them.
VIDEOS = "data=video_folder data.root=DIR data.val_root=DIR2 trainer.devices=8 trainer.precision=16-mixed"
LAUNCHES = [
    "recipe=simmim data=imagenet data.root=DIR trainer.devices=8 trainer.accumulate_grad_batches=2 "
    "trainer.precision=16-mixed",
    f"recipe=videomae_v2 {VIDEOS} data.repeats=2 trainer.accumulate_grad_batches=2 recipe.clip_grad=5 "
    "recipe.optim.weight_decay=0.1 recipe.optim.implementation=foreach activation_checkpointing=true",
    f"recipe=videomae_v2 {VIDEOS} recipe.epochs=0",
    f"recipe=sigma {VIDEOS} data.sampling=segments recipe.transform.crop.flip=0 recipe.test_clips=2",
    f"recipe=sigma_linear {VIDEOS} data.sampling=segments data.repeats=2 trainer.accumulate_grad_batches=2",
]


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_valid_and_build(name):
    cfg = compose(["checkpoint=x", f"recipe={name}"], "finetune")
    recipe = instantiate(cfg.recipe)
    assert isinstance(recipe, ClassifierRecipe)
    run = LrRun(peak=1.0, batch_ratio=1.0, total_steps=recipe.epochs * 10, steps_per_epoch=10)
    assert recipe.optim.schedule.bind(run)(0) >= 0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("recipe.epoch=3", r"recipe\.epoch: .*did you mean 'epochs'"),
        ("recipe.optim.decay_policy=simmim_swim_finetune", "did you mean 'simmim_swin_finetune'"),
        ("recipe.augment.mixup=0.5", "mixup_alpha"),
        ("start=scrath", "did you mean 'scratch'"),
    ],
)
def test_mistakes_are_named(override, message):
    with pytest.raises(UserError, match=message):
        compose(["checkpoint=x", override], "finetune")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["recipe=videomae_v2", "recipe.clip_grad=5"], r"recipe\.clip_grad=5"),
        (["recipe=mae", "trainer.gradient_clip_val=1"], r"trainer\.gradient_clip_val=1"),
        (["recipe=simmim", "recipe.optim.implementation=fused"], r"recipe\.clip_grad=5"),
    ],
)
def test_clipping_that_half_precision_forbids_is_told_before_training(overrides, message):
    half = ["checkpoint=x", *overrides, "trainer.precision=16-mixed"]
    told = f"fused can't clip gradients \\({message}.*use recipe.optim.implementation=foreach"
    with pytest.raises(UserError, match=told):
        compose(half, "finetune")
    compose([*half, "recipe.optim.implementation=foreach"], "finetune")
    compose([*half[:-1], "trainer.precision=bf16-mixed"], "finetune")


def test_half_precision_needs_a_gpu():
    with pytest.raises(
        UserError, match=r"trainer\.precision: 16-mixed needs a GPU, but trainer.accelerator is"
    ):
        compose(["checkpoint=x", "trainer.precision=16-mixed", "trainer.accelerator=cpu"], "finetune")


def test_the_checkpoint_is_required():
    with pytest.raises(UserError, match="checkpoint: required, but not set"):
        compose([], "finetune")


@pytest.mark.parametrize("line", LAUNCHES)
def test_launch_lines_are_valid(line):
    compose(["checkpoint=FILE", *line.split()], "finetune")


def test_the_command_trains_and_says_where_everything_is(tmp_path, picture_folders, monkeypatch, capsys):
    arguments = [
        "checkpoint=vit_tiny_patch16_224",
        f"run_dir={tmp_path / 'run'}",
        "data=folder",
        f"data.root={picture_folders / 'train'}",
        f"data.val_root={picture_folders / 'val'}",
        "data.labels=folders",
        "data.image_size=16",
        "data.num_workers=0",
        "recipe.batch_size=16",
        "recipe.epochs=1",
        "recipe.optim.schedule.warmup_epochs=0",
        "activation_checkpointing=true",
    ]
    monkeypatch.setattr(sys, "argv", ["finetune", *arguments])
    main()
    printed = capsys.readouterr().out
    assert "vit_tiny_patch16_224 (timm, fresh weights): 0 tensors loaded" in printed
    assert "top-1 " in printed
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").is_file()
    assert (tmp_path / "run" / "metrics.csv").is_file()
