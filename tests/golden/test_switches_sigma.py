"""Switches of SIGMA that no shipped case has: each must be buildable, and give what the spec says."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, interpolate, linear, mse_loss

from maskpre.golden.case import CannotReplayError, Case, read_case
from maskpre.golden.compare import Replay
from maskpre.golden.kinds import replay

CASE = read_case(Path(__file__).parent / "sigma/mlp_swav")
MASK = CASE.inputs["mask"].bool()
CELLS, WIDTH, FRAMES = 16, 24, 4
GENERATOR = torch.Generator().manual_seed(0)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def step(
    *,
    drop: tuple[str, ...] = (),
    add: dict[str, Tensor] | None = None,
    given: dict[str, Tensor] | None = None,
    **hyperparameters: Any,
) -> Replay:
    """The shipped step with other settings, weights and inputs, and nothing to be compared with."""
    weights = {name: value for name, value in CASE.weights.items() if not name.startswith(drop)}
    case: Case = replace(
        CASE,
        hyperparameters={**CASE.hyperparameters, **hyperparameters},
        weights={**weights, **(add or {})},
        inputs={**CASE.inputs, **(given or {})},
        outputs={},
        extras={},
    )
    return replay(case)


def hidden(values: Tensor) -> Tensor:
    return values[MASK].unflatten(0, (2, -1))


def standardised(features: Tensor) -> Tensor:
    """What a teacher says of frames, at all tokens of the clip."""
    clip = features.unflatten(0, (2, FRAMES)).flatten(1, 2)
    return (clip - clip.mean(dim=1, keepdim=True)) / (clip.var(dim=1, keepdim=True).sqrt() + 1e-6)


@pytest.mark.parametrize("prefix", [0, 1])
def test_dino_features_are_clustered_without_projection(prefix: int) -> None:
    features = draw(2 * FRAMES, prefix + CELLS, WIDTH)
    found = step(drop=("head.",), given={"features": features}, target_type="dino_v1")
    labels = hidden(standardised(features[:, prefix:]))
    torch.testing.assert_close(found.tensors["labels"], labels)
    torch.testing.assert_close(found.tensors["proj"], labels)
    torch.testing.assert_close(found.tensors["pred"], CASE.outputs["pred"])
    assert "prototypes" in found.gradients
    assert not any(name.startswith("head.") for name in found.gradients)
    assert found.loss.item() == pytest.approx(
        sum(found.losses[name].item() for name in CASE.losses if name != "total")
    )


def test_dino_v2_drops_registers_and_resizes() -> None:
    features = draw(2 * FRAMES, 5 + 36, WIDTH)
    found = step(drop=("head.",), given={"features": features}, target_type="dino_v2")
    maps = interpolate(features[:, 5:].mT.unflatten(2, (6, 6)), size=(4, 4), mode="bilinear")
    torch.testing.assert_close(found.tensors["labels"], hidden(standardised(maps.flatten(2).mT)))


def test_features_at_all_or_at_hidden_tokens() -> None:
    features = draw(2, FRAMES * CELLS, WIDTH)
    plain = step(drop=("head.",), given={"x": features}, target_type="dino_v1", normlize_target=False)
    torch.testing.assert_close(plain.tensors["labels"], hidden(features))
    ready = step(drop=("head.",), given={"labels": hidden(features)}, target_type="dino_v1")
    torch.testing.assert_close(ready.tensors["labels"], hidden(features))


def test_distances_to_features() -> None:
    features = draw(2, FRAMES * CELLS, WIDTH)
    found = step(drop=("head.", "prototypes"), given={"x": features}, target_type="dino_v1", loss_func="L2")
    mean, std = features.mean(dim=1, keepdim=True), features.std(dim=1, keepdim=True)
    expected = mse_loss(found.tensors["pred"], hidden((features - mean) / (std + 1e-6)))
    torch.testing.assert_close(found.loss, expected)


@pytest.mark.parametrize("normalized", [True, False])
def test_distances_to_pixels(normalized: bool) -> None:
    head = {"decoder.head.weight": draw(384, 32), "decoder.head.bias": draw(384)}
    found = step(
        drop=("head.", "prototypes", "decoder.head"),
        add=head,
        target_type="pixel",
        loss_func="L2",
        decoder_num_classes=384,
        normlize_target=normalized,
    )
    torch.testing.assert_close(found.loss, mse_loss(found.tensors["pred"], found.tensors["labels"]))
    labels = CASE.outputs["labels"]
    assert torch.allclose(found.tensors["labels"], labels, atol=1e-5) is normalized


@pytest.mark.parametrize("loss_func", ["SWAV", "L2"])
def test_a_memory_replaces_predictions(loss_func: str) -> None:
    widths = ((24, 24), (24, 24), (24, 5))
    added = {"memory": draw(5, 24)}
    for layer, (narrow, wide) in zip((0, 2, 4), widths, strict=True):
        added[f"memory_pred_head.{layer}.weight"] = draw(wide, narrow) / 5
        added[f"memory_pred_head.{layer}.bias"] = draw(wide)
    features = draw(2, FRAMES * CELLS, WIDTH)
    found = step(
        drop=("head.", "prototypes") if loss_func == "L2" else ("head.",),
        add=added,
        given={"features": features},
        target_type="dino_v1",
        memory_size=5,
        loss_func=loss_func,
    )
    x = CASE.outputs["pred"]
    for layer in (0, 2, 4):
        x = linear(x, added[f"memory_pred_head.{layer}.weight"], added[f"memory_pred_head.{layer}.bias"])
        x = gelu(x) if layer < 4 else x
    torch.testing.assert_close(
        found.tensors["pred"], x.softmax(dim=-1) @ added["memory"], rtol=1e-6, atol=1e-7
    )
    assert added.keys() <= found.gradients.keys()


def test_numbers_of_sinkhorn_count() -> None:
    shipped = step()
    for changed in (step(sinkhorn_eps=0.5), step(sinkhorn_iterations=1)):
        assert torch.equal(changed.tensors["scores_pred"], shipped.tensors["scores_pred"])
        assert not torch.allclose(changed.tensors["q_pred"], shipped.tensors["q_pred"], atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"target_type": "mha"}, "target_type 'mha' is unknown; known are mlp, pixel, dino_v1, dino_v2"),
        ({"loss_func": "L2"}, "loss_func 'L2' with target_type 'mlp' fails in the official code"),
        ({"target_type": "pixel"}, "loss_func 'SWAV' with target_type 'pixel' fails"),
        ({"mask_type": "random"}, "mask_type 'random' fails in the official code"),
        ({"chromatic_correction": True}, "chromatic_correction has no counterpart"),
        ({"world_size": 0}, "world_size must be 1, got 0"),
        ({"cos_attn": True}, "'cos_attn' is unknown"),
        ({"num_prototype": 3}, "'num_prototype' is unknown; did you mean 'num_prototypes'"),
        ({"target_type": "dino_v1"}, "needs the teacher's features as the one further input"),
        ({"decoder_num_classes": 32}, "decoder_num_classes is 32, but the target has 24 values"),
        ({"num_prototypes": 21}, "the weights don't fit the model"),
    ],
)
def test_what_cannot_be_replayed_is_named(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(CannotReplayError, match=told):
        step(**settings)
