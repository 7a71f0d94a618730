"""Switches that no shipped case has: each must be buildable, and change what comes out."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from maskpre.build import build_model
from maskpre.checkpoints.names_mae import official_keys
from maskpre.golden import mae_pretrain
from maskpre.golden.case import Case, read_case
from maskpre.golden.compare import Replay
from maskpre.golden.kinds import replay
from maskpre.golden.pretraining import experiment
from maskpre.golden.simmim_encoders import encoder_settings

GOLDEN = Path(__file__).parent


def _case(name: str, **changes: Any) -> Case:
    """A shipped case with other hyperparameters, inputs or weights, and nothing to be compared with."""
    case = read_case(GOLDEN / name)
    hyperparameters = {**case.hyperparameters, **changes.pop("hyperparameters", {})}
    return replace(case, hyperparameters=hyperparameters, outputs={}, extras={}, **changes)


def _random(state: dict[str, Tensor]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: value.double()
        if "pos_embed" in name
        else torch.randn(value.shape, generator=generator).double() * 0.1
        for name, value in state.items()
    }


def _mae(**hyperparameters: Any) -> Replay:
    case = _case("mae/pretrain_pixels", hyperparameters=hyperparameters)
    settings = case.settings(mae_pretrain.Settings)
    model = build_model(experiment(case, mae_pretrain.overrides(settings)))
    return replay(replace(case, weights=_random(official_keys(model.state_dict()))))


def test_mae_norm_eps_and_mlp_ratio() -> None:
    plain = _mae()
    assert _mae(eps=1e-3).loss.item() != pytest.approx(plain.loss.item(), rel=1e-6)
    assert _mae(mlp_ratio=2.0).loss.item() != pytest.approx(plain.loss.item(), rel=1e-6)


def test_mae_keeps_as_many_as_the_official_product() -> None:
    assert _mae(mask_ratio=0.8).tensors["ids_keep"].shape == (2, 12)


def _renamed(weights: dict[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    return {
        name.replace(old, new) if name.startswith(old) else name: value for name, value in weights.items()
    }


def test_mae_linear_probe_of_pooled_tokens() -> None:
    case = _case("mae/linprobe_cls", hyperparameters={"global_pool": True})
    case = replace(case, weights=_renamed(case.weights, "norm.", "fc_norm."))
    result = replay(case)
    assert result.extras["missing_keys"] == ["head.bias", "head.weight"]
    assert result.loss.item() != pytest.approx(case.loss, rel=1e-3)


def test_mae_pooled_norm_missing_from_a_pretraining_checkpoint() -> None:
    case = _case("mae/linprobe_cls", hyperparameters={"global_pool": True})
    assert replay(case).extras == {
        "missing_keys": ["fc_norm.bias", "fc_norm.weight", "head.bias", "head.weight"],
        "unexpected_keys": ["norm.bias", "norm.weight"],
    }


def test_mae_fine_tuning_of_the_class_token() -> None:
    case = _case("mae/finetune_gap", hyperparameters={"global_pool": False})
    case = replace(case, weights=_renamed(case.weights, "fc_norm.", "norm."))
    assert replay(case).loss.item() != pytest.approx(case.loss, rel=1e-3)


def test_lars_with_weight_decay() -> None:
    before = replay(_case("mae/lars_step")).tensors
    after = replay(_case("mae/lars_step", hyperparameters={"weight_decay": 0.1})).tensors
    assert torch.equal(before["step2/head.1.bias"], after["step2/head.1.bias"])
    assert not torch.equal(before["step2/head.1.weight"], after["step2/head.1.weight"])


def test_color_windows_instead_of_a_bank() -> None:
    windows = torch.arange(64.0).reshape(1, 8, 8).repeat(2, 1, 1)
    images = read_case(GOLDEN / "colormae/model_green").inputs["imgs"]
    result = replay(_case("colormae/model_green", inputs={"imgs": images, "windows": windows}))
    assert result.tensors["ids_keep"][0].tolist() == list(range(63, 47, -1))


def test_color_random_masks() -> None:
    images = read_case(GOLDEN / "colormae/model_green").inputs["imgs"]
    noise = torch.arange(64.0).repeat(2, 1) / 64
    result = replay(
        _case(
            "colormae/model_green",
            inputs={"imgs": images, "noise": noise},
            hyperparameters={"color": "random"},
        )
    )
    assert result.tensors["ids_keep"][0].tolist() == list(range(16))


def test_color_batches_larger_than_the_bank() -> None:
    inputs = read_case(GOLDEN / "colormae/mask_bank").inputs
    draws = {"crop": torch.tensor([[0, 3], [18, 0], [7, 9]]), "flips": torch.tensor([[0, 1], [1, 1], [0, 0]])}
    case = _case("colormae/mask_bank", inputs={**inputs, **draws}, hyperparameters={"batch": 14})
    result = replay(case)
    expected = inputs["bank"][1, 7:21, 9:23]
    torch.testing.assert_close(result.tensors["windows_out"][13], expected / expected.max())
    brightest = result.tensors["windows_out"][13].flatten().argmax().item()
    assert result.tensors["ids_keep"][13, 0].item() == brightest


def _official_simmim(case: Case) -> dict[str, Tensor]:
    """Random weights for the case's encoder, renamed only as far as these small models need."""
    encoder = encoder_settings(case, case.hyperparameters["type"], case.hyperparameters["encoder"])
    overrides = ["experiment=simmim", *encoder.overrides(), "data.image_size=64", "masking.unit_size=16"]
    state = _random(build_model(experiment(case, overrides)).state_dict())
    weight, bias = (state.pop(f"predictors.main.pred.{kind}") for kind in ("weight", "bias"))
    state |= {"decoder.0.weight": weight[:, :, None, None], "decoder.0.bias": bias}
    return _renamed(state, "encoder.layers.1.downsample.", "encoder.layers.0.downsample.")


@pytest.mark.parametrize(
    ("name", "switches"),
    [
        ("simmim/swin", {"ape": True, "patch_norm": False}),
        ("simmim/swin", {"qkv_bias": False, "window_size": 7}),
        ("simmim/vit_shared_rpb", {"use_rel_pos_bias": True, "use_shared_rel_pos_bias": False}),
        ("simmim/vit_shared_rpb", {"use_abs_pos_emb": True, "use_shared_rel_pos_bias": False}),
        ("simmim/vit_shared_rpb", {"use_mean_pooling": True, "init_values": None, "qkv_bias": False}),
    ],
)
def test_simmim_encoders(name: str, switches: dict[str, Any]) -> None:
    case = _case(name)
    case = replace(
        case,
        hyperparameters={**case.hyperparameters, "encoder": {**case.hyperparameters["encoder"], **switches}},
    )
    weights = _official_simmim(case)
    result = replay(replace(case, weights=weights))
    decided = {*result.extras["weight_decay"], *result.extras["no_weight_decay"]}
    assert decided == set(weights)
    assert result.tensors["pred"].shape == (2, 3, 64, 64)
