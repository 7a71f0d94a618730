"""SIGMA's names against the name list of a golden case."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from maskpre.checkpoints.names_sigma import encoder_keys, official_keys, pretraining_keys

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


def test_a_wrapped_checkpoint_is_read_alike() -> None:
    official = load_file(WEIGHTS)
    wrapped = pretraining_keys({f"module.{name}": value for name, value in official.items()})
    assert wrapped.keys() == pretraining_keys(official).keys()


def test_encoder_keys_leave_the_rest_out() -> None:
    found = encoder_keys(load_file(WEIGHTS))
    assert "patch_embed.proj.weight" in found
    assert "blocks.1.attn.qkv.bias" in found
    assert not any(name.startswith(("head", "prototypes", "decoder", "encoder")) for name in found)
