"""Switches of HPM that no shipped case has: each must be buildable, and change what comes out."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from maskpre.golden.case import CannotReplayError, Case, read_case
from maskpre.golden.compare import Replay
from maskpre.golden.kinds import replay

GOLDEN = Path(__file__).parent / "hpm"
CELLS, VISIBLE = 36, 9


def case_with(**hyperparameters: Any) -> Case:
    """The shipped step with other settings, and nothing to be compared with."""
    case = read_case(GOLDEN / "step_relative")
    return replace(case, hyperparameters={**case.hyperparameters, **hyperparameters}, outputs={}, extras={})


def step(**hyperparameters: Any) -> Replay:
    return replay(case_with(**hyperparameters))


@pytest.fixture(scope="module")
def shipped() -> Replay:
    return step()


def test_plain_pixels(shipped: Replay) -> None:
    plain = step(norm_pix_loss=False)
    assert plain.losses["reconstruction"].item() != pytest.approx(shipped.losses["reconstruction"].item())
    assert torch.equal(plain.tensors["mask"], shipped.tensors["mask"])


def test_absolute_loss(shipped: Replay) -> None:
    absolute = step(relative=False)
    losses, predicted = (shipped.tensors[name] for name in ("loss_per_patch", "loss_pred_masked"))
    mean, variance = losses.mean(dim=1, keepdim=True), losses.var(dim=1, keepdim=True)
    expected = (predicted - (losses - mean) / (variance + 1e-6).sqrt()).square().mean()
    torch.testing.assert_close(absolute.losses["loss_prediction"], expected)
    assert torch.equal(absolute.losses["reconstruction"], shipped.losses["reconstruction"])


@pytest.mark.parametrize(
    ("settings", "hard"),
    [
        ({"epoch": 0, "total_epoch": 800}, 0),
        ({"epoch": 199}, 13),
        ({"epoch": 199, "mask_ratio": 0.6}, 11),
        ({"epoch": 0, "guide": False}, 13),
        ({"epoch": 0, "guide": False, "keep_ratio": 1.0}, 27),
    ],
)
def test_how_many_patches_are_hard(settings: dict[str, Any], hard: int) -> None:
    result = step(**settings)
    mask, losses, noise = (
        result.tensors["mask"].bool(),
        result.tensors["ema_loss_pred"],
        read_case(GOLDEN / "step_relative").inputs["noise"],
    )
    hidden = int(mask[0].sum())
    for row in range(2):
        hardest = set(losses[row].argsort(descending=True)[:hard].tolist())
        others = [cell for cell in noise[row].argsort().tolist() if cell not in hardest]
        assert set((~mask[row]).nonzero()[:, 0].tolist()) == set(others[: CELLS - hidden])


def test_decay_of_early_and_late_epochs() -> None:
    assert step(epoch=0).extras["ema_decay_used"] == pytest.approx(0.999, rel=1e-12)
    assert step(epoch=150).extras["ema_decay_used"] == 0.9999


def with_features(kind: str, width: int) -> Case:
    """The step with a reconstructor that predicts features of a width."""
    case = case_with(learn_feature_loss=kind)
    generator = torch.Generator().manual_seed(0)
    weights = dict(case.weights)
    for part in ("student", "ema"):
        shape = (width, case.hyperparameters["decoder_embed_dim"])
        weights[f"{part}/decoder_pred.weight"] = torch.randn(shape, generator=generator).double()
        weights[f"{part}/decoder_pred.bias"] = torch.randn(width, generator=generator).double()
    return replace(case, weights=weights)


def distance(result: Replay, features: torch.Tensor) -> torch.Tensor:
    hidden = result.tensors["mask"].bool()
    wanted = torch.stack([row[mask] for row, mask in zip(features, hidden, strict=True)])
    cosine = torch.nn.functional.cosine_similarity(result.tensors["pred_masked"], wanted, dim=-1)
    return 2 - 2 * cosine


@pytest.mark.parametrize("kind", ["clip", "dino"])
@pytest.mark.parametrize("class_token", [0, 1])
def test_features_of_another_network(kind: str, class_token: int) -> None:
    case = with_features(kind, 24)
    features = torch.randn(2, class_token + CELLS, 24, generator=torch.Generator().manual_seed(1)).double()
    result = replay(replace(case, inputs={**case.inputs, "features": features}))
    expected = distance(result, features[:, class_token:])
    torch.testing.assert_close(result.tensors["loss_per_patch"], expected)
    torch.testing.assert_close(result.losses["reconstruction"], expected.mean())
    with pytest.raises(CannotReplayError, match="needs the teacher's features as the one further input"):
        replay(case)


def network(case: Case, part: str) -> VisionTransformer:
    """timm's own, with the encoder weights of the student or of the average."""
    h = case.hyperparameters
    sizes = {key: h[key] for key in ("img_size", "patch_size", "embed_dim", "depth", "num_heads")}
    net = VisionTransformer(**sizes, num_classes=0, global_pool="").double().eval()
    names = net.state_dict()
    net.load_state_dict({name: case.weights[f"{part}/{name}"] for name in names})
    return net


def test_features_of_the_average() -> None:
    case = with_features("ema", 36)
    result = replay(case)
    with torch.no_grad():
        features = network(case, "ema")(case.inputs["imgs"])[:, 1:]
    expected = distance(result, features)
    torch.testing.assert_close(result.tensors["loss_per_patch"], expected)
    torch.testing.assert_close(result.losses["reconstruction"], expected.mean())


def with_secondary(ratio: float) -> Case:
    """The step with blanked visible patches, whose token and draws are random."""
    case = case_with(vis_mask_ratio=ratio)
    generator = torch.Generator().manual_seed(0)
    tokens = {
        f"{part}/vis_mask_token": torch.randn(1, 1, 36, generator=generator).double()
        for part in ("student", "ema")
    }
    draws = {
        f"vis_noise_{part}": torch.rand(2, num, generator=generator).double()
        for part, num in (("student", VISIBLE), ("ema", CELLS))
    }
    return replace(case, weights={**case.weights, **tokens}, inputs={**case.inputs, **draws})


def test_blanked_visible_patches() -> None:
    case = with_secondary(0.5)
    result = replay(case)
    net, token = network(case, "student"), case.weights["student/vis_mask_token"]
    seen = ~result.tensors["mask"].bool()
    with torch.no_grad():
        tokens = net.patch_embed(case.inputs["imgs"])
        tokens = torch.stack([row[mask] for row, mask in zip(tokens, seen, strict=True)])
        blank = case.inputs["vis_noise_student"].argsort(dim=1) >= 4
        tokens = torch.where(blank[..., None], token, tokens)
        tokens = tokens + torch.stack([net.pos_embed[0, 1:][mask] for mask in seen])
        tokens = torch.cat([(net.cls_token + net.pos_embed[:, :1]).expand(2, -1, -1), tokens], dim=1)
        expected = net.norm(net.blocks(tokens))
    torch.testing.assert_close(result.tensors["latent"], expected)
    assert result.gradients["encoder.mask_token"].abs().sum() > 0


def test_the_average_sees_blanked_patches_too(shipped: Replay) -> None:
    case = with_secondary(0.5)
    first = replay(case).tensors["ema_loss_pred"]
    assert not torch.allclose(first, shipped.tensors["ema_loss_pred"])
    other = replace(case, inputs={**case.inputs, "vis_noise_ema": case.inputs["vis_noise_ema"].flip(1)})
    assert not torch.allclose(first, replay(other).tensors["ema_loss_pred"])


def test_blanked_patches_need_their_draws() -> None:
    case = with_secondary(0.5)
    inputs = {name: value for name, value in case.inputs.items() if name != "vis_noise_ema"}
    with pytest.raises(CannotReplayError, match="needs one input of 36 draws per picture"):
        replay(replace(case, inputs=inputs))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"saliency": True}, "hyperparameters: 'saliency' is unknown"),
        ({"learn_feature_loss": "mocov3"}, "learn_feature_loss 'mocov3' is unknown; known are none, clip"),
        ({"learning_loss": False}, "learning_loss=false predicts no losses"),
    ],
)
def test_what_cant_be_built_is_named(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(CannotReplayError, match=told):
        step(**settings)


@pytest.mark.parametrize(("features", "share"), [("none", 0.5), ("clip", 0.2)])
def test_masks_without_guidance(features: str, share: float) -> None:
    case = read_case(GOLDEN / "mask_easy_to_hard")
    setting = {"epoch": 3, "total_epoch": 200, "mask_ratio": 0.75, "guide": False}
    setting["learn_feature_loss"] = features
    result = replay(replace(case, hyperparameters={"L": 64, "settings": [setting]}))
    assert result.extras["len_keep_and_number_of_hardest"] == [[16, int(48 * share)]]


def test_the_absolute_loss_alone() -> None:
    case = read_case(GOLDEN / "learning_loss")
    result = replay(replace(case, hyperparameters={**case.hyperparameters, "relative": False}))
    assert result.loss.item() == pytest.approx(case.losses["absolute"])
