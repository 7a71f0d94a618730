"""SIGMA's names against the name list of a golden case."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from maskpre.build import build_model
from maskpre.checkpoints.layouts import recognise
from maskpre.checkpoints.load import load_into
from maskpre.checkpoints.names_sigma import encoder_keys, official_keys, pretraining_keys
from maskpre.checkpoints.sources import open_source
from maskpre.config import compose
from maskpre.golden.case import read_case
from maskpre.golden.sigma_pretrain import Settings, overrides

WEIGHTS = Path(__file__).parents[1] / "golden/sigma/mlp_swav/weights.safetensors"
MEMORY = {"memory": torch.randn(5, 24), "memory_pred_head.0.weight": torch.randn(24, 24)}


@pytest.mark.parametrize("extra", [{}, MEMORY], ids=["plain", "memory"])
def test_names_there_and_back(extra) -> None:
    official = {**load_file(WEIGHTS), **extra}
    ours = pretraining_keys(official)
    back = official_keys(ours)
    assert back.keys() == official.keys()
    assert all(torch.equal(back[name], value) for name, value in official.items())
    assert {"targets.main.prototypes", "targets.main.projection.6.bias"} <= ours.keys()
    decoder = "predictors.main.predictor.blocks" if extra else "predictors.main.blocks"
    assert f"{decoder}.0.norm1.weight" in ours
    assert ("predictors.main.memory" in ours) == bool(extra)


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod."])
def test_a_wrapped_checkpoint_is_read_alike(wrapper) -> None:
    official = load_file(WEIGHTS)
    wrapped = {f"{wrapper}{name}": value for name, value in official.items()}
    layout = recognise(wrapped)
    assert layout.name == "SIGMA"
    assert layout.model_keys(wrapped).keys() == pretraining_keys(official).keys()
    assert encoder_keys(wrapped).keys() == encoder_keys(official).keys()


def test_encoder_keys_leave_the_rest_out() -> None:
    found = encoder_keys(load_file(WEIGHTS))
    assert "patch_embed.proj.weight" in found
    assert "blocks.1.attn.qkv.bias" in found
    assert not any(name.startswith(("head", "prototypes", "decoder", "encoder")) for name in found)


def test_a_run_starts_from_an_official_file(tmp_path) -> None:
    path, official = tmp_path / "checkpoint-800.pth", load_file(WEIGHTS)
    torch.save({"model": official, "epoch": 800}, path)
    opened = open_source(str(path))
    assert opened.kind == "official, SIGMA"
    assert opened.encoder().keys() == encoder_keys(official).keys()
    case = read_case(WEIGHTS.parent)
    model = build_model(compose(overrides(replace(case.settings(Settings), qkv_bias=True))))
    report = load_into(model, str(path))
    assert (report.fresh, report.left_out) == ((), {})
    loaded = model.state_dict()
    assert torch.equal(loaded["targets.main.prototypes"], official["prototypes"])
    assert torch.equal(loaded["targets.main.projection.2.weight"], official["head.2.weight"])
    assert torch.equal(loaded["predictors.main.pred.weight"], official["decoder.head.weight"])


def test_published_sizes_are_told_from_the_weights() -> None:
    sizes = {"patch_embed.proj.weight": (384, 3, 2, 16, 16), "blocks.0.mlp.fc1.weight": (1536, 384)}
    state = {f"encoder.{name}": torch.zeros(shape) for name, shape in sizes.items()}
    state |= {f"encoder.blocks.{i}.attn.{side}_bias": torch.zeros(384) for i in range(12) for side in "qv"}
    layout = recognise({**state, "prototypes": torch.zeros(3, 4)})
    found = layout.architecture({**state, "prototypes": torch.zeros(3, 4)}).options
    assert (layout.name, found["depth"], found["num_heads"], found["qkv_bias"]) == ("SIGMA", 12, 6, "no_key")
