"""SparK's checkpoints, told apart, renamed and loaded; and a convnet's export with its batch-norm buffers."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from maskpre.build import build_model
from maskpre.checkpoints.export import export
from maskpre.checkpoints.load import load_into, load_timm
from maskpre.checkpoints.names_spark import pretraining_keys
from maskpre.config import compose

GOLDEN = Path(__file__).parents[1] / "golden" / "spark"
CONVNEXT = "{depths: [1, 1, 2, 1], dims: [8, 16, 24, 32], output_stride: 32}"
RESNET = "{layers: [1, 1, 1, 1], channels: [4, 6, 8, 12], output_stride: 32}"


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """A ConvNeXt's file as the authors' training writes it."""
    state = load_file(GOLDEN / "convnext_train" / "weights.safetensors")
    path = tmp_path / "convnext_withdecoder_1kpretrained_spark_style.pth"
    torch.save({"module": {**state, "norm_black": torch.zeros(1, 3, 96, 96)}, "optimizer": {}}, path)
    return path


def small(experiment: str, options: str, size: int) -> list[str]:
    sizes = [f"encoder.options={options}", f"data.image_size={size}", "predictor.width=32"]
    return [f"experiment={experiment}", *sizes]


def test_official_weights_start_a_model(official: Path) -> None:
    model = build_model(compose(small("spark_convnext", CONVNEXT, 96)))
    report = load_into(model, str(official))
    assert (report.fresh, dict(report.left_out)) == ((), {})
    state = load_file(GOLDEN / "convnext_train" / "weights.safetensors")
    loaded = model.encoder.get_parameter("stages.2.blocks.1.mlp.fc1.weight")
    assert torch.equal(loaded, state["sparse_encoder.sp_cnn.stages.2.1.pwconv1.weight"].float())


def test_official_weights_start_a_classifier_with_or_without_decoder(official: Path, tmp_path: Path) -> None:
    state = torch.load(official, weights_only=True)["module"]
    prefix = "sparse_encoder.sp_cnn."
    alone = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    torch.save(alone, tmp_path / "convnext_1kpretrained_timm_style.pth")
    both = [
        load_timm(str(path), num_classes=5)[0]
        for path in (official, tmp_path / "convnext_1kpretrained_timm_style.pth")
    ]
    first, second = (dict(net.stages.named_parameters()) for net in both)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_foreign_name_is_refused() -> None:
    state = {"dense_decoder.proj.bias": torch.zeros(3), "decoder.bias": torch.zeros(3)}
    with pytest.raises(ValueError, match=r"'decoder.bias' is no name of a SparK"):
        pretraining_keys(state)


@pytest.mark.parametrize(
    ("experiment", "options"), [("spark", RESNET), ("spark_convnext", CONVNEXT)], ids=["resnet", "convnext"]
)
def test_exports_to_timm_with_equal_features(experiment: str, options: str, tmp_path: Path) -> None:
    config = compose(small(experiment, options, 128))
    model = build_model(config)
    for value in model.encoder.buffers():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5)
    checkpoint = tmp_path / "last.ckpt"
    plain = OmegaConf.to_container(config, resolve=True)
    torch.save({"state_dict": model.state_dict(), "config": plain}, checkpoint)
    assert export(str(checkpoint), str(tmp_path / "exported"), "timm") < 1e-5
    net, report = load_timm(str(tmp_path / "exported"), num_classes=5, img_size=64)
    assert all(name.startswith(("fc.", "head.fc.")) for name in report.fresh)
    for name, value in model.encoder.named_buffers():
        assert torch.equal(net.get_buffer(name), value)
