"""Switches of VideoMAE's official code that no shipped case has."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from maskpre.build import build_model
from maskpre.checkpoints.names_videomae import official_keys
from maskpre.golden.case import CannotReplayError, Case, read_case
from maskpre.golden.compare import Replay
from maskpre.golden.kinds import replay
from maskpre.golden.pretraining import experiment
from maskpre.golden.videomae_pretrain import Settings, overrides
from maskpre.golden.videomae_settings import read_settings

GOLDEN = Path(__file__).parent


def _case(name: str, **hyperparameters: Any) -> Case:
    case = read_case(GOLDEN / name)
    return replace(case, hyperparameters={**case.hyperparameters, **hyperparameters}, outputs={}, extras={})


def _weights(case: Case) -> dict[str, torch.Tensor]:
    """The case's weights where they fit, and small random ones elsewhere."""
    model = build_model(experiment(case, overrides(read_settings(case, Settings))))
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, value in official_keys(model.state_dict()).items():
        known = case.weights.get(name)
        fits = known is not None and known.shape == value.shape
        found[name] = known if fits else torch.randn(value.shape, generator=generator).double() * 0.1
    return found


def _replay(**hyperparameters: Any) -> Replay:
    case = _case("videomae_v2/dual_mask", **hyperparameters)
    return replay(replace(case, weights=_weights(case)))


@pytest.mark.parametrize(
    "switches",
    [
        {"cos_attn": True},
        {"init_values": 0.1},
        {"qkv_bias": False},
        {"normlize_target": False},
        {"mlp_ratio": 2.0},
        {"qkv_bias": None, "all_frames": 8, "num_frames": 16, "with_cp": True},
        {"tubelet_size": 2, "with_cp": True, "drop_path_rate": 0.2},
    ],
)
def test_switches_act(switches: dict[str, Any]) -> None:
    result, plain = _replay(**switches), replay(_case("videomae_v2/dual_mask"))
    assert result.loss.isfinite()
    same = "with_cp" in switches
    assert (result.loss.item() == pytest.approx(plain.loss.item(), rel=1e-9)) == same
    assert ("encoder.blocks.0.attn.scale" in result.gradients) == ("cos_attn" in switches)
    assert ("encoder.blocks.0.gamma_1" in result.gradients) == ("init_values" in switches)
    assert ("decoder.blocks.0.attn.q_bias" in result.gradients) == (switches.get("qkv_bias") is not False)


def test_no_decoder_mask_is_version_one() -> None:
    dual, base = _case("videomae_v2/dual_mask"), _case("videomae/base")
    mask = dual.inputs["mask"]
    inputs = {"videos": dual.inputs["videos"], "mask": mask}
    without = replay(replace(dual, inputs=inputs))
    reduced = replay(replace(dual, inputs={**inputs, "decode_mask": 1 - mask}))
    first = replay(replace(base, weights=dual.weights, inputs={**inputs, "mask": mask.flatten(1)}))
    assert without.loss.item() == pytest.approx(first.loss.item(), rel=1e-12)
    assert reduced.loss.item() == pytest.approx(first.loss.item(), rel=1e-12)


def test_clips_of_patches_of_14() -> None:
    """As ViT-g: patches of 14, an MLP of 48/11 of the width."""
    case = _case(
        "videomae/base", img_size=28, patch_size=14, num_frames=4, mlp_ratio=48 / 11, encoder_embed_dim=44
    )
    videos = torch.randn(2, 3, 4, 28, 28, dtype=torch.float64)
    mask = torch.tensor([[0, 1, 1, 1, 0, 1, 1, 1]] * 2, dtype=torch.uint8)
    case = replace(case, inputs={"videos": videos, "mask": mask})
    result = replay(replace(case, weights=_weights(case)))
    assert result.tensors["pred"].shape == (2, 6, 2 * 14 * 14 * 3)
    assert result.gradients["encoder.blocks.0.mlp.fc1.weight"].shape == (192, 44)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"use_learnable_pos_emb": True}, "use_learnable_pos_emb must be false"),
        ({"qk_scales": 1.0}, "'qk_scales' is unknown"),
        ({"decoder_num_classes": 7}, "decoder_num_classes 384, the values of a tubelet"),
        ({"encoder_num_heads": 5}, r"num_heads \(5\) must divide embed_dim \(48\)"),
    ],
)
def test_what_cannot_be_replayed_is_named(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(CannotReplayError, match=told):
        replay(_case("videomae/base", **changes))


def test_layer_decay_of_fine_tuning() -> None:
    case = _case("videomae/finetune_forward", layer_decay=0.5)
    groups = replay(case).info["lr_scale_and_weight_decay"]
    assert groups["blocks.0.attn.q_bias"] == [0.25, 0.0]
    with pytest.raises(CannotReplayError, match="use_mean_pooling must be true"):
        replay(_case("videomae/finetune_forward", use_mean_pooling=False))


def test_other_generators_are_unknown() -> None:
    with pytest.raises(CannotReplayError, match="unit must be 'tube' or 'cell', got 'random'"):
        replay(_case("videomae_v2/tube_mask", unit="random"))
