"""What a checkpoint's own weights suffice for needs no file of the frozen teacher."""

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from omegaconf import OmegaConf

from maskpre import visualize
from maskpre.build import build_model
from maskpre.checkpoints.export import export
from maskpre.checkpoints.load import load_model, load_teachers, load_timm, open_model, restore
from maskpre.checkpoints.save import atomic_save
from maskpre.config import compose
from maskpre.errors import UserError
from maskpre.evaluation.reconstruction import picture_objective
from maskpre.ops.noise import KeyedNoise

SMALL = ["data.image_size=16", "encoder.embed_dim=16", "encoder.depth=2", "encoder.num_heads=2"]
DECODER = ["predictor.embed_dim=8", "predictor.depth=1", "predictor.num_heads=2"]
TEACHER = ["teacher=timm", "teacher.embed_dim=16", "teacher.depth=2", "teacher.num_heads=2"]

Made = tuple[str, str]


@pytest.fixture
def make(tmp_path: Path, picture_folders: Path) -> Callable[..., Made]:
    """Writes a checkpoint of an experiment and the file of its teacher, and gives both paths."""

    def write(*overrides: str) -> Made:
        file = tmp_path / "teacher.pth"
        net = timm.create_model(
            "vit_tiny_patch16_224",
            img_size=16,
            patch_size=8,
            embed_dim=16,
            depth=2,
            num_heads=2,
            num_classes=0,
        )
        atomic_save({"state_dict": net.state_dict()}, file)
        data = ["data=folder", f"data.root={picture_folders / 'train'}", "data.labels=folders"]
        config = compose([*overrides, *data, *SMALL, *TEACHER, f"teacher.weights={file}"])
        model = build_model(config)
        content = {"state_dict": model.state_dict(), "config": OmegaConf.to_container(config, resolve=True)}
        atomic_save(content, tmp_path / "last.ckpt")
        return str(tmp_path / "last.ckpt"), str(file)

    return write


@pytest.mark.parametrize(
    "overrides", [["experiment=mrmae", *DECODER], ["experiment=maskalign", "target.layers=mean"]]
)
def test_encoders_are_exported_probed_and_fine_tuned_without_it(
    make: Callable[..., Made], tmp_path: Path, overrides: list[str]
) -> None:
    checkpoint, teacher = make(*overrides)
    Path(teacher).unlink()
    assert export(checkpoint, str(tmp_path / "timm"), "timm") < 1e-12
    assert export(checkpoint, str(tmp_path / "full"), "full") == 0
    _, report = load_timm(checkpoint, num_classes=2, img_size=16)
    assert not [name for name in report.fresh if name.startswith("blocks")]
    with pytest.raises(UserError, match=r"teacher\.pth is no file"):
        load_model(checkpoint)


def test_an_mae_under_a_teachers_masks_gets_official_names_without_it(
    make: Callable[..., Made], tmp_path: Path
) -> None:
    checkpoint, teacher = make("experiment=mae", "masking=attentive", *DECODER)
    Path(teacher).unlink()
    assert export(checkpoint, str(tmp_path / "mae.pth"), "mae") == 0


def test_pictures_need_it_only_if_it_makes_the_mask(
    make: Callable[..., Made],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def draw(checkpoint: str) -> None:
        monkeypatch.setattr(
            "sys.argv", ["visualize", f"checkpoint={checkpoint}", f"out={tmp_path / 'a.png'}"]
        )
        visualize.main()

    checkpoint, teacher = make("experiment=mrmae", *DECODER)
    Path(teacher).unlink()
    draw(checkpoint)
    assert (tmp_path / "a.png").exists()
    checkpoint, teacher = make("experiment=mrmae", "masking=attentive", *DECODER)
    draw(checkpoint)
    Path(teacher).unlink()
    capsys.readouterr()
    with pytest.raises(SystemExit):
        draw(checkpoint)
    assert "teacher.pth is no file" in capsys.readouterr().err


def test_a_kept_objective_is_what_it_was_among_others(make: Callable[..., Made]) -> None:
    checkpoint, _ = make("experiment=mrmae", "masking=attentive", *DECODER)
    whole, opened = load_model(checkpoint), open_model(checkpoint)
    part = restore(opened, checkpoint, teachers="blank")
    name = picture_objective(part)
    part.keep(name)
    load_teachers(part, opened)
    batch = {"image": torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8), "index": torch.arange(2)}
    batch["epoch"] = torch.zeros(2, dtype=torch.int64)
    noise = KeyedNoise(0, batch["epoch"], batch["index"])
    steps = [model(batch, noise=noise, progress=1.0) for model in (whole, part)]
    assert (steps[1].losses.keys(), name) == ({"main"}, "main")
    assert torch.equal(steps[0].losses["main"], steps[1].losses["main"])
    assert steps[1].plans.keys() == steps[0].plans.keys()
