from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from maskpre.checkpoints.export import export
from maskpre.checkpoints.load import load_into, load_model, load_timm, open_model, restore
from maskpre.checkpoints.read import read_torch
from maskpre.errors import UserError
from maskpre.evaluation.features import encode

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("name", ["mae", "swin", "simmim_vit", "mae_no_class", "conv_vit"])
def test_tokens_are_the_checkpoints(name: str, make_checkpoint: Callable[..., str]) -> None:
    path = make_checkpoint(name)
    pictures = torch.randn(2, 3, 32, 32)
    net, report = load_timm(path, num_classes=0, global_pool="")
    expected, got = load_model(path).encoder(pictures), encode(net.eval(), pictures)
    torch.testing.assert_close(got.tokens, expected.tokens, rtol=1e-4, atol=1e-5)
    assert report.kind == "checkpoint"
    assert not report.resized


def test_average_pooling_has_a_fresh_norm(mae: str) -> None:
    net, report = load_timm(mae, num_classes=7)
    assert net.head.out_features == 7
    assert isinstance(net.norm, torch.nn.Identity)
    assert bool((net.fc_norm.weight == 1).all())
    assert set(report.fresh) == {"fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"}
    assert report.left_out == dict.fromkeys(
        ("norm.weight", "norm.bias"), "pooled tokens have a norm of their own"
    )


def test_a_fine_tuned_conv_vit_has_no_skips(make_checkpoint: Callable[..., str]) -> None:
    net, report = load_timm(make_checkpoint("conv_vit"), num_classes=7, img_size=48)
    assert net(torch.zeros(1, 3, 48, 48)).shape == (1, 7)
    assert report.resized == {"pos_embed": ((1, 16, 24), (1, 36, 24))}
    reasons = {name.partition(".")[0]: reason for name, reason in report.left_out.items()}
    no_place = dict.fromkeys(
        ("stage1_output_decode", "stage2_output_decode"), "the model has no place for it"
    )
    assert reasons == {**no_place, "norm": "pooled tokens have a norm of their own"}


def test_convmaes_files_are_read(make_checkpoint: Callable[..., str], tmp_path: Path) -> None:
    """Official names of encoder and decoder, and sizes told from the shapes alone."""
    path = make_checkpoint("conv_vit", "encoder.embed_dims=[8,12,192]", "encoder.mlp_ratios=[1,2,3]")
    state = read_torch(path)["state_dict"]
    renamed = {name.replace("predictors.main.mask", "mask"): value for name, value in state.items()}
    official = {
        name.removeprefix("encoder.").replace("predictors.main.", "decoder_"): value
        for name, value in renamed.items()
    }
    torch.save({"model": official}, tmp_path / "convmae.pth")
    net, report = load_timm(str(tmp_path / "convmae.pth"), num_classes=0, global_pool="")
    model, pictures = load_model(path), torch.randn(2, 3, 32, 32)
    assert report.kind == "official, ConvMAE"
    torch.testing.assert_close(encode(net.eval(), pictures).tokens, model.encoder(pictures).tokens)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    report = load_into(model, str(tmp_path / "convmae.pth"))
    assert (report.left_out, report.fresh) == ({}, ())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_class_token_keeps_the_norm(mae: str) -> None:
    net, report = load_timm(mae, num_classes=7, global_pool="token")
    weights = read_torch(mae)["state_dict"]
    assert torch.equal(net.norm.weight, weights["encoder.norm.weight"])
    assert set(report.fresh) == {"head.weight", "head.bias"}
    assert report.left_out == {}


def test_positions_are_resized_for_larger_pictures(mae: str) -> None:
    net, report = load_timm(mae, num_classes=7, img_size=48)
    assert net(torch.zeros(1, 3, 48, 48)).shape == (1, 7)
    assert report.resized == {"pos_embed": ((1, 17, 24), (1, 37, 24))}


def test_swins_windows_grow_with_the_picture(swin: str) -> None:
    net, report = load_timm(swin, num_classes=7, img_size=48)
    assert net(torch.zeros(1, 3, 48, 48)).shape == (1, 7)
    assert set(report.resized.values()) == {((49, 2), (121, 2)), ((49, 4), (121, 4))}


def test_a_shared_table_is_copied_into_every_block(simmim_vit: str) -> None:
    net, report = load_timm(simmim_vit, num_classes=7)
    table = read_torch(simmim_vit)["state_dict"]["encoder.rel_pos_bias.relative_position_bias_table"]
    assert len(report.copied) == 2
    assert all(torch.equal(block.attn.relative_position_bias_table, table) for block in net.blocks)
    assert net.rel_pos_bias is None


def test_averaged_weights_come_first(mae: str, tmp_path: Path) -> None:
    content = read_torch(mae)
    content["ema"] = {name: value + 1 for name, value in content["state_dict"].items()}
    torch.save(content, tmp_path / "ema.ckpt")
    net, report = load_timm(str(tmp_path / "ema.ckpt"), num_classes=0)
    assert report.kind == "checkpoint, averaged weights"
    assert torch.equal(net.cls_token, content["ema"]["encoder.cls_token"])


def test_an_exported_folder_is_like_the_checkpoint(simmim_vit: str, tmp_path: Path) -> None:
    export(simmim_vit, str(tmp_path / "out"), "timm")
    torch.manual_seed(0)
    direct, _ = load_timm(simmim_vit, num_classes=7)
    for source in (str(tmp_path / "out"), f"local-dir:{tmp_path / 'out'}"):
        torch.manual_seed(0)
        net, report = load_timm(source, num_classes=7)
        assert report.kind == "exported encoder"
        weights = zip(net.state_dict().values(), direct.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in weights)


def test_a_timm_name_is_fresh() -> None:
    net, report = load_timm("vit_tiny_patch16_224", num_classes=3, img_size=32, drop_path_rate=0.1)
    assert net(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    assert report.loaded == ()
    assert "0 tensors loaded" in str(report)
    assert net.blocks[-1].drop_path1.drop_prob == pytest.approx(0.1)


def test_published_weights_without_a_network_are_a_clear_error() -> None:
    with pytest.raises(UserError, match="timm's weights of 'vit_tiny_patch16_224' can't be loaded"):
        load_timm("timm:vit_tiny_patch16_224", num_classes=3)
    with pytest.raises(UserError, match="timm has no model 'vit_smal'"):
        load_timm("timm:vit_smal", num_classes=3)


def _official(tmp_path: Path, case: str, *, wrap: str) -> str:
    """A golden case's weights as their authors' code would save them, widened to a known width."""
    torch.save(
        {wrap: load_file(GOLDEN / case / "weights.safetensors"), "epoch": 1}, tmp_path / "official.pth"
    )
    return str(tmp_path / "official.pth")


def test_official_simmim_swin(tmp_path: Path) -> None:
    path = _official(tmp_path, "simmim/swin", wrap="model")
    net, report = load_timm(path, num_classes=5)
    assert report.kind == "official, SimMIM Swin"
    assert net.patch_embed.grid_size == (16, 16)
    assert [len(stage.blocks) for stage in net.layers] == [2, 2]
    weights = load_file(GOLDEN / "simmim/swin/weights.safetensors")
    merging = weights["encoder.layers.0.downsample.reduction.weight"]
    assert torch.equal(net.layers[1].downsample.reduction.weight, merging)


def test_official_simmim_vit(tmp_path: Path) -> None:
    path = _official(tmp_path, "simmim/vit_shared_rpb", wrap="model")
    net, report = load_timm(path, num_classes=5)
    assert report.kind == "official, SimMIM ViT"
    assert (net.blocks[0].attn.num_heads, len(net.blocks)) == (3, 2)
    assert len(report.copied) == 2


@pytest.mark.parametrize(
    ("case", "wrap"), [("mae/pretrain_pixels", "model"), ("colormae/model_green", "state_dict")]
)
def test_official_vits_of_unknown_width_cant_be_built(case: str, wrap: str, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"a ViT of width 48 could have any number of heads; known are .* 768"
    ):
        load_timm(_official(tmp_path, case, wrap=wrap), num_classes=5)


def _tiny_vit() -> dict[str, torch.Tensor]:
    net = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, num_classes=4)
    return {name: torch.randn_like(value) for name, value in net.state_dict().items()}


@pytest.mark.parametrize("num_classes", [4, 9])
def test_official_mae(num_classes: int, tmp_path: Path) -> None:
    state = {**_tiny_vit(), "decoder_embed.weight": torch.zeros(8, 192)}
    torch.save({"model": state}, tmp_path / "mae.pth")
    net, report = load_timm(str(tmp_path / "mae.pth"), num_classes=num_classes, global_pool="token")
    assert report.kind == "official, MAE"
    assert len(net.blocks) == 1
    assert torch.equal(net.blocks[0].attn.qkv.weight, state["blocks.0.attn.qkv.weight"])
    assert torch.equal(net.head.weight, state["head.weight"]) == (num_classes == 4)
    head = (
        {}
        if num_classes == 4
        else dict.fromkeys(("head.weight", "head.bias"), "the model has 9 classes, the source 4")
    )
    assert report.left_out == head


def test_bare_safetensors_are_recognised_too(tmp_path: Path) -> None:
    save_file(_tiny_vit(), tmp_path / "vit.safetensors")
    assert load_timm(str(tmp_path / "vit.safetensors"), num_classes=4)[1].kind == "official, MAE"


def test_an_encoder_that_lacks_tensors_is_refused(tmp_path: Path) -> None:
    state = _tiny_vit()
    del state["blocks.0.norm2.weight"]
    torch.save(state, tmp_path / "vit.pth")
    with pytest.raises(UserError, match=r"lacks 1 tensors of the encoder: blocks\.0\.norm2\.weight"):
        load_timm(str(tmp_path / "vit.pth"), num_classes=4)


def test_other_shapes_are_refused(tmp_path: Path) -> None:
    state = _tiny_vit()
    state["blocks.0.norm2.weight"] = torch.zeros(5)
    torch.save(state, tmp_path / "vit.pth")
    with pytest.raises(
        UserError, match=r"blocks\.0\.norm2\.weight has shape \(5,\), the model's is \(192,\)"
    ):
        load_timm(str(tmp_path / "vit.pth"), num_classes=4)


def test_other_channels_are_refused(mae: str) -> None:
    with pytest.raises(UserError, match="reads 3 channels, the data have 1"):
        load_timm(mae, num_classes=4, in_chans=1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list, no weights"),
        ({"epoch": 1}, "holds no tensors; its entries are epoch"),
        ({"conv.weight": torch.zeros(1)}, r"is of no known kind: .* \(its names start with conv\.weight\)"),
    ],
)
def test_unknown_files(content: object, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(UserError, match=message):
        load_timm(str(tmp_path / "x.pth"), num_classes=4)


def test_unknown_names_and_folders(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="is no file, no folder, and no timm model; timm has vit_tiny_patch16_224"
    ):
        load_timm("vit_tiny_patch16_225", num_classes=4)
    with pytest.raises(UserError, match=r"has neither config\.json .* nor model\.yaml"):
        load_timm(str(tmp_path), num_classes=4)


def test_a_whole_model_predicts_the_same(mae: str) -> None:
    model = load_model(mae)
    state = read_torch(mae)["state_dict"]
    assert not model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_weights_alone_are_no_model(tmp_path: Path) -> None:
    torch.save({"model": _tiny_vit()}, tmp_path / "mae.pth")
    with pytest.raises(UserError, match=r"mae\.pth \(official, MAE\) holds no model of this package"):
        load_model(str(tmp_path / "mae.pth"))


def test_a_configuration_that_lies_is_refused(mae: str, tmp_path: Path) -> None:
    content = read_torch(mae)
    del content["state_dict"]["predictors.main.pred.bias"]
    torch.save(content, tmp_path / "bad.ckpt")
    with pytest.raises(UserError, match=r"don't fit the configuration beside them\n.*\n.*fresh .*pred\.bias"):
        load_model(str(tmp_path / "bad.ckpt"))


def test_start_from_official_weights(mae: str, tmp_path: Path) -> None:
    export(mae, str(tmp_path / "mae.pth"), "mae")
    model = restore(open_model(mae), mae)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    report = load_into(model, str(tmp_path / "mae.pth"))
    assert report.kind == "official, MAE"
    assert report.fresh == ()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_start_with_another_predictor_and_picture(mae: str, make_checkpoint: Callable[..., str]) -> None:
    model = load_model(make_checkpoint("mae", "predictor.embed_dim=32", "data.image_size=48"))
    report = load_into(model, mae)
    assert report.resized.keys() == {"encoder.pos_embed"}
    assert "predictors.main.mask_token" in report.left_out
    assert "predictors.main.mask_token" in report.fresh
    assert all(name.startswith("predictors.") for name in report.fresh)


def test_start_from_an_encoder_of_another_kind(mae: str, swin: str) -> None:
    with pytest.raises(UserError, match=r"lacks .* tensors of the encoder"):
        load_into(load_model(mae), swin)
