"""HPM's names, and its files as sources of weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from maskpre.build import build_model
from maskpre.checkpoints.load import load_into, load_timm
from maskpre.checkpoints.names_hpm import average_keys, encoder_keys, pretraining_keys
from maskpre.config import compose
from maskpre.errors import UserError

CASE = Path(__file__).parents[1] / "golden/hpm/step_relative"
SIZES = ["data.image_size=48", "encoder.embed_dim=36", "encoder.depth=2", "encoder.num_heads=3"]
DECODER = ["predictor.embed_dim=24", "predictor.depth=1", "predictor.num_heads=2"]


def part(name: str) -> dict[str, torch.Tensor]:
    state = load_file(CASE / "weights.safetensors")
    return {key.removeprefix(f"{name}/"): value for key, value in state.items() if key.startswith(f"{name}/")}


def test_names_are_all_of_a_models() -> None:
    with torch.device("meta"):
        model = build_model(compose(["experiment=hpm", *SIZES, *DECODER]))
    ours = {**pretraining_keys(part("student")), **average_keys(part("ema"))}
    assert ours.keys() == model.state_dict().keys()
    assert all(ours[name].shape == value.shape for name, value in model.state_dict().items())


def test_the_encoder_is_timms() -> None:
    kept = encoder_keys({f"module.{name}": value for name, value in part("student").items()})
    assert "blocks.1.attn.qkv.weight" in kept
    assert not any(name.startswith(("decoder", "mask", "module")) for name in kept)


@pytest.fixture
def official(tmp_path: Path) -> str:
    """A file as the authors' code writes it, of a width whose heads are known."""
    torch.manual_seed(0)
    sizes = ["data.image_size=48", "encoder.embed_dim=192", "encoder.depth=1", "encoder.num_heads=3"]
    model = build_model(compose(["experiment=mae", *sizes, *DECODER]))
    encoder = {f"module.{n}": torch.randn_like(value) for n, value in model.encoder.state_dict().items()}
    student = {**encoder, "module.decoder_blocks_losspred.0.norm1.weight": torch.ones(24)}
    averaged = {name.removeprefix("module."): 2 * value for name, value in student.items()}
    path = tmp_path / "hpm.pth"
    content = {"epoch": 7, "state_dict": student, "ema_state_dict": averaged, "model": "mae_vit_tiny"}
    torch.save(content, path)
    return str(path)


def test_both_sets_of_weights_fit_timm(official: str) -> None:
    student, report = load_timm(official, num_classes=3, global_pool="token")
    averaged, _ = load_timm(f"ema:{official}", num_classes=3, global_pool="token")
    assert report.kind == "official, HPM"
    torch.testing.assert_close(2 * student.norm.weight, averaged.norm.weight)


def test_a_model_starts_from_them(official: str) -> None:
    sizes = ["data.image_size=48", "encoder.embed_dim=192", "encoder.depth=1", "encoder.num_heads=3"]
    model = build_model(compose(["experiment=hpm", *sizes, *DECODER]))
    load_into(model, official)
    assert bool((model.predictors["losses"].blocks[0].norm1.weight == 1).all())
    teacher = model.averages["ema"]
    assert torch.equal(teacher.encoder.norm.weight, model.encoder.norm.weight)


def test_files_without_an_average_say_so(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.ones(1)}}, tmp_path / "plain.pth")
    with pytest.raises(UserError, match=r"plain\.pth holds no averaged weights"):
        load_timm(f"ema:{tmp_path / 'plain.pth'}", num_classes=3)
