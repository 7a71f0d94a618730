import json
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch

import maskpre.checkpoints.export as exporting
from maskpre.checkpoints.export import export
from maskpre.checkpoints.load import load_model
from maskpre.checkpoints.read import read_torch
from maskpre.errors import UserError


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("mae", ()),
        ("mae", ("encoder.reg_tokens=2", "encoder.init_values=0.1")),
        ("mae_no_class", ()),
        ("swin", ()),
        ("simmim_vit", ()),
        ("simmim_vit", ("encoder.norm=pooled", "encoder.rel_pos=both", "encoder.position=learned")),
    ],
)
def test_timm_rebuilds_the_encoder(
    name: str, more: tuple[str, ...], make_checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    path = make_checkpoint(name, *more)
    assert export(path, str(tmp_path / "out"), "timm") < 1e-12
    net = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    pictures = torch.randn(2, 3, 32, 32)
    encoded = load_model(path).encoder(pictures)
    got = net.forward_features(pictures).flatten(1, -2)[:, -encoded.tokens.shape[1] :]
    torch.testing.assert_close(got, encoded.tokens, rtol=1e-4, atol=1e-5)


def test_timm_knows_mean_std_and_size(make_checkpoint: Callable[..., str], tmp_path: Path) -> None:
    path = make_checkpoint("mae", "data.mean=[0.1,0.2,0.3]", "data.std=[0.4,0.5,0.6]")
    export(path, str(tmp_path / "out"), "timm")
    net = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True, num_classes=5, img_size=48)
    data = timm.data.resolve_model_data_config(net)
    assert (data["mean"], data["std"]) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert json.loads((tmp_path / "out/config.json").read_text())["pretrained_cfg"]["input_size"] == [
        3,
        32,
        32,
    ]
    assert net(torch.zeros(1, 3, 48, 48)).shape == (1, 5)


def test_what_timm_lacks_is_exported_whole(make_checkpoint: Callable[..., str], tmp_path: Path) -> None:
    path = make_checkpoint("conv_vit")
    with pytest.raises(UserError, match=r"timm has no model like .*ConvViT; use format=full"):
        export(path, str(tmp_path / "out"), "timm")
    assert export(path, str(tmp_path / "out"), "full") == 0


@pytest.mark.parametrize("name", ["mae", "swin"])
def test_a_whole_model_comes_back(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    path = request.getfixturevalue(name)
    assert export(path, str(tmp_path / "out"), "full") == 0
    state = read_torch(path)["state_dict"]
    again = load_model(str(tmp_path / "out")).state_dict()
    assert again.keys() == state.keys()
    assert all(torch.equal(again[key], value) for key, value in state.items())


def test_official_names(mae: str, tmp_path: Path) -> None:
    assert export(mae, str(tmp_path / "mae.pth"), "mae") == 0
    official = torch.load(tmp_path / "mae.pth")["model"]
    assert {"cls_token", "decoder_blocks.0.attn.qkv.weight", "decoder_pred.bias"} <= official.keys()
    assert official["decoder_pos_embed"].shape == (1, 17, 16)


@pytest.mark.parametrize("name", ["swin", "mae_no_class"])
def test_only_an_mae_has_official_names(
    name: str, make_checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="format=mae holds a ViT with class token"):
        export(make_checkpoint(name), str(tmp_path / "x.pth"), "mae")
    assert list(tmp_path.iterdir()) == []


def test_what_timm_cant_build_is_refused(make_checkpoint: Callable[..., str], tmp_path: Path) -> None:
    path = make_checkpoint("swin", "encoder.position=learned")
    with pytest.raises(UserError, match=r"timm's Swin has neither absolute positions .* use format=full"):
        export(path, str(tmp_path / "out"), "timm")
    assert list(tmp_path.iterdir()) == []
    assert export(path, str(tmp_path / "out"), "full") == 0


def test_a_wrong_export_fails_and_leaves_nothing(
    mae: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = exporting.FORMATS["timm"]

    def wrong(source: exporting.OwnSource, folder: Path) -> None:
        source.state["encoder.norm.bias"] = source.state["encoder.norm.bias"] + 1e-3
        right.write(source, folder)

    monkeypatch.setitem(exporting.FORMATS, "timm", exporting.Format(wrong, right.features))
    with pytest.raises(UserError, match=r"the export's features differ by 0\.001, allowed are 1e-05"):
        export(mae, str(tmp_path / "out"), "timm")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(mae: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="exists already; choose another out"):
        export(mae, str(tmp_path), "timm")
