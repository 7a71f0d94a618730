"""SimMIM's names, on its own fine-tuning checkpoint."""

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from maskpre.checkpoints.names_simmim import encoder_keys, pixels_last, pretraining_keys
from maskpre.checkpoints.resize import fit_positions
from maskpre.encoders.beit import BeitViT
from maskpre.encoders.swin import Swin
from maskpre.ops.patchify import patchify
from maskpre.types import Grid

GOLDEN = Path(__file__).parents[1] / "golden" / "simmim" / "finetune_swin_win6_to_7"


def close(found, expected, rtol=5e-5):
    atol = rtol * expected.abs().max().item()
    torch.testing.assert_close(found.double(), expected.double(), rtol=0.0, atol=atol)


def finetuning_swin(sizes):
    net = timm.create_model(
        "swin_tiny_patch4_window7_224",
        num_classes=sizes["num_classes"],
        img_size=sizes["img_size"],
        **{key: sizes["encoder"][key] for key in ("patch_size", "embed_dim", "depths", "num_heads")},
        window_size=sizes["encoder"]["window_size"],
        mlp_ratio=sizes["encoder"]["mlp_ratio"],
    )
    return net.eval()


def test_fine_tuning_from_a_smaller_window_is_the_official_one():
    record = json.loads((GOLDEN / "case.json").read_text())
    weights, inputs, outputs = (
        load_file(GOLDEN / f"{part}.safetensors") for part in ("weights", "inputs", "outputs")
    )
    net = finetuning_swin(record["hyperparameters"])
    state = fit_positions(encoder_keys(weights, kind="swin"), net.state_dict(), num_prefix_tokens=0)
    tables = [name for name in outputs if name.startswith("loaded/")]
    assert len(tables) == 4
    for name in tables:
        close(state[name.removeprefix("loaded/")], outputs[name], rtol=1e-5)
    net.load_state_dict(state)

    net.double()
    # The official code resizes in float32; its own result is what the rest of the case follows from.
    net.load_state_dict({name.removeprefix("loaded/"): outputs[name] for name in tables}, strict=False)
    features = net.forward_features(inputs["imgs"].double())
    close(features.mean(dim=(1, 2)), outputs["features"])
    logits = net.forward_head(features)
    close(logits, outputs["logits"])
    loss = cross_entropy(logits, inputs["labels"])
    assert loss.item() == pytest.approx(record["loss"], rel=1e-6)
    loss.backward()
    gradients = {name[5:]: value for name, value in outputs.items() if name.startswith("grad/")}
    assert len(gradients) >= 3
    for name, value in encoder_keys(gradients, kind="swin").items():
        close(net.get_parameter(name).grad, value)


def test_our_encoder_takes_the_same_checkpoint():
    record = json.loads((GOLDEN / "case.json").read_text())["hyperparameters"]
    weights = load_file(GOLDEN / "weights.safetensors")
    sizes = {key: record["encoder"][key] for key in ("patch_size", "embed_dim", "depths", "num_heads")}
    encoder = Swin(
        name="swin_tiny_patch4_window7_224",
        img_size=record["pretrain_img_size"],
        window_size=6,
        mlp_ratio=record["encoder"]["mlp_ratio"],
        **sizes,
    )
    renamed = pretraining_keys({k: v for k, v in weights.items() if not k.startswith("head.")}, kind="swin")
    own = {k.removeprefix("encoder."): v for k, v in renamed.items() if k.startswith("encoder.")}
    encoder.load_state_dict(own)


def test_decoder_weights_follow_our_order_of_pixels():
    grid = Grid((2, 3), (4, 4))
    convolution = torch.nn.Conv2d(8, 4 * 4 * 3, 1)
    features = torch.randn(2, 8, 2, 3)
    picture = torch.nn.PixelShuffle(4)(convolution(features))
    state = {f"decoder.0.{name}": value for name, value in convolution.state_dict().items()}
    ours = pretraining_keys(state, kind="vit")
    weight, bias = ours["predictors.main.pred.weight"], ours["predictors.main.pred.bias"]
    found = torch.nn.functional.linear(features.flatten(2).transpose(1, 2), weight, bias)
    torch.testing.assert_close(found, patchify(picture, grid))


def test_names_of_a_mean_pooling_vit():
    encoder = BeitViT(
        name="beit_base_patch16_224",
        img_size=16,
        patch_size=8,
        embed_dim=12,
        depth=2,
        num_heads=3,
        norm="pooled",
        rel_pos="shared",
    )
    official = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    official |= {"encoder.fc_norm.weight": torch.ones(12), "encoder.fc_norm.bias": torch.zeros(12)}
    official |= {"encoder.rel_pos_bias.relative_position_index": torch.zeros(5, 5, dtype=torch.int64)}
    ours = pretraining_keys(official, kind="vit")
    assert sorted(ours) == sorted(f"encoder.{name}" for name in encoder.state_dict())
    net = timm.create_model(
        "beit_base_patch16_224",
        img_size=16,
        patch_size=8,
        embed_dim=12,
        depth=2,
        num_heads=3,
        num_classes=0,
        global_pool="avg",
    )
    state = fit_positions(encoder_keys(official, kind="vit"), net.state_dict(), num_prefix_tokens=1)
    net.load_state_dict(state)


def test_foreign_names_are_refused():
    with pytest.raises(ValueError, match=r"'student\.norm\.weight' is no name of a SimMIM pre-training"):
        pretraining_keys({"student.norm.weight": torch.zeros(1)}, kind="vit")
    with pytest.raises(ValueError, match="gives 3 values per pixel of a square, not 49"):
        pixels_last(torch.zeros(49))
