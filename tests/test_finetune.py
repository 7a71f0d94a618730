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


def test_the_checkpoint_is_required():
    with pytest.raises(UserError, match="checkpoint: required, but not set"):
        compose([], "finetune")


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
    ]
    monkeypatch.setattr(sys, "argv", ["finetune", *arguments])
    main()
    printed = capsys.readouterr().out
    assert "vit_tiny_patch16_224 (timm, fresh weights): 0 tensors loaded" in printed
    assert "top-1 " in printed
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").is_file()
    assert (tmp_path / "run" / "metrics.csv").is_file()
