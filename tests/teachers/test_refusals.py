"""What is wrong with a teacher is one clear message, before anything is trained; nothing trains a teacher."""

from pathlib import Path

import pytest
import timm
import torch

from maskpre.build import build_model
from maskpre.checkpoints.save import atomic_save
from maskpre.config import compose
from maskpre.errors import ConfigError
from maskpre.ops.noise import KeyedNoise

SIZES = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
TEACHER = ["teacher=timm", *(f"teacher.{name}={value}" for name, value in SIZES.items())]
STUDENT = ["data.image_size=32", "encoder.embed_dim=16", "encoder.depth=2", "encoder.num_heads=2"]
SIZELESS = [f"teacher.{name}=null" for name in SIZES]
MASKALIGN = ["experiment=maskalign", "target.layers=mean"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("teacher") / "good.pth"
    net = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=0, **SIZES)
    atomic_save({"state_dict": net.state_dict()}, path)
    return str(path)


REFUSED = {
    "a missing file": (
        [*MASKALIGN, "teacher.weights=lost.pth"],
        "lost.pth is no file, no folder, and no timm model",
    ),
    "another width": (
        [*MASKALIGN, "teacher.embed_dim=64"],
        "has shape (1, 1, 32), the teacher's is (1, 1, 64); set the teacher's name",
    ),
    "other patches": (
        [*MASKALIGN, "teacher.patch_size=4", "encoder.patch_size=4"],
        "patch_embed.proj.weight has shape (32, 3, 8, 8), the teacher's is (32, 3, 4, 4)",
    ),
    "another depth": ([*MASKALIGN, "teacher.depth=3"], "lacks 12 tensors of the teacher: blocks.2"),
    "other cells than the student's": (
        ["experiment=mrmae", "teacher.img_size=40"],
        "the pass 'teacher' gives (5, 5) cells, the student has (4, 4); choose the teacher's img_size",
    ),
    "other cells than the mask's": (
        ["experiment=mae", "masking=attentive", "teacher.img_size=40"],
        "attention comes on (5, 5) cells, which don't hold whole cells of the encoder's (4, 4)",
    ),
    "attention of a convnet": (
        ["experiment=mae", "masking=attentive", "teacher.weights=null", *SIZELESS, "teacher.name=resnet18"],
        "has no class token whose attention can be read; use a plain ViT with one",
    ),
    "layers of a convnet": (
        [*MASKALIGN, "masking=random", "teacher.weights=null", *SIZELESS, "teacher.name=resnet18"],
        "layers",
    ),
    "no teacher": ([*MASKALIGN, "teacher=none"], "reads the pass 'teacher', but only student run"),
}


def composed(overrides: list[str], weights: str) -> list[str]:
    """Overrides of an experiment whose teacher's file is good, unless they say otherwise."""
    teacher = [] if "teacher=none" in overrides else [*TEACHER, f"teacher.weights={weights}"]
    given = {one.partition("=")[0] for one in overrides}
    kept = [one for one in [*teacher, *STUDENT, "encoder.patch_size=8"] if one.partition("=")[0] not in given]
    groups = [one for one in overrides if one.startswith(("experiment=", "masking=", "teacher="))]
    return [*groups, *kept, *(one for one in overrides if one not in groups)]


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_told_before_training(what: str, weights: str) -> None:
    overrides, message = REFUSED[what]
    with pytest.raises(ConfigError) as caught:
        compose(composed(overrides, weights))
    assert message in str(caught.value)
    assert len({problem.message for problem in caught.value.problems}) == 1


def test_a_file_of_something_else_is_named(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(ConfigError, match=r"other\.pth is of no known kind"):
        compose(composed(MASKALIGN, str(tmp_path / "other.pth")))


@pytest.mark.parametrize(
    "overrides", [MASKALIGN, ["experiment=mrmae", "predictor.embed_dim=16", "predictor.depth=1"]]
)
def test_a_step_changes_nothing_of_the_teacher(overrides: list[str], weights: str) -> None:
    more = ["predictor.num_heads=2"] if "experiment=mrmae" in overrides else []
    model = build_model(compose(composed([*overrides, *more], weights)))
    held = model.teachers["teacher"].held_state()
    before = {name: value.clone() for name, value in held.items()}
    batch = {"image": torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8), "index": torch.arange(2)}
    batch["epoch"] = torch.zeros(2, dtype=torch.int64)
    step = model(batch, noise=KeyedNoise(0, batch["epoch"], batch["index"]), progress=0.0)
    step.total.backward()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    optimizer.step()
    network = model.teachers["teacher"].network
    assert all(weight.grad is None and not weight.requires_grad for weight in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in held.items())
    assert model.encoder.patch_embed.proj.weight.grad.any()
