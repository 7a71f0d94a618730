import sys
from pathlib import Path

import pytest
from hydra.utils import instantiate

from maskpre.config import compose
from maskpre.errors import UserError
from maskpre.evaluation.base import Probe
from maskpre.evaluation.streaming import StreamingLinearProbe
from maskpre.probe import main

PROBES = sorted(path.stem for path in Path(__file__).parents[1].glob("configs/probe/[!_]*.yaml"))


@pytest.mark.parametrize("name", PROBES)
def test_probes_are_valid_and_build(name):
    cfg = compose(["checkpoint=x", f"probe={name}"], "probe")
    assert isinstance(instantiate(cfg.probe), Probe | StreamingLinearProbe)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("probe=liner", r"there is no configs/probe/liner\.yaml; .*did you mean 'linear'"),
        ("probe.base_lrs=0.1", r"probe\.base_lrs: expected a list of numbers, got 0\.1"),
        ("probe.num_neighbours=3", r"probe\.num_neighbours"),
    ],
)
def test_mistakes_are_named(override, message):
    with pytest.raises(UserError, match=message):
        compose(["checkpoint=x", override], "probe")


@pytest.mark.parametrize(
    "options",
    [
        ["probe=knn", "probe.num_neighbors=5"],
        ["probe=attentive", "probe.epochs=3", "probe.batch_size=32"],
        [
            "probe=linear",
            "probe.recipe.epochs=1",
            "probe.recipe.batch_size=16",
            "probe.recipe.optim.schedule.warmup_epochs=0",
        ],
    ],
    ids=lambda options: options[0],
)
def test_the_command_prints_an_accuracy(options, tmp_path, picture_folders, monkeypatch, capsys):
    arguments = [
        "checkpoint=vit_tiny_patch16_224",
        f"run_dir={tmp_path / 'run'}",
        "data=folder",
        f"data.root={picture_folders / 'train'}",
        f"data.val_root={picture_folders / 'val'}",
        "data.labels=folders",
        "data.image_size=16",
        "data.num_workers=0",
    ]
    monkeypatch.setattr(sys, "argv", ["probe", *arguments, *options])
    main()
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("top-1 ")
    assert "top-5 " in last
