"""VideoMAE's official files, and exports of encoders of clips."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from maskpre.checkpoints.export import export
from maskpre.checkpoints.load import load_into, load_model, load_timm
from maskpre.checkpoints.names_videomae import official_keys
from maskpre.checkpoints.read import read_torch
from maskpre.checkpoints.sources import open_source
from maskpre.errors import UserError


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint: Callable[..., str]) -> str:
    return make_checkpoint("videomae")


def official(checkpoint: str) -> dict[str, Tensor]:
    """The checkpoint's weights as the authors' code would have them."""
    return official_keys(read_torch(checkpoint)["state_dict"])


def save(state: dict[str, Tensor], path: Path) -> str:
    torch.save({"model": state, "epoch": 3}, path)
    return str(path)


def clips() -> Tensor:
    return torch.randn(2, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("mark", ["", "_orig_mod.", "module."])
def test_official_pretraining_files_start_a_model(mark: str, checkpoint: str, tmp_path: Path) -> None:
    path = save({mark + name: value for name, value in official(checkpoint).items()}, tmp_path / "v.pth")
    model = load_model(checkpoint)
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    for parameter in model.parameters():
        torch.nn.init.ones_(parameter)
    report = load_into(model, path)
    assert (report.fresh, dict(report.left_out)) == ((), {})
    assert report.kind == "official, VideoMAE"
    for name, value in model.state_dict().items():
        query, key, val = (
            expected[name].chunk(3) if name.endswith("qkv.bias") else (expected[name], None, None)
        )
        kept = query if key is None else torch.cat([query, torch.zeros_like(key), val])
        assert torch.equal(value, kept), name


def test_official_pretraining_files_start_a_classifier(checkpoint: str, tmp_path: Path) -> None:
    path = save(official(checkpoint), tmp_path / "v.pth")
    options = open_source(path).architecture().options
    assert (options["embed_dim"], options["num_heads"], options["num_frames"]) == (192, 3, 16)
    net, report = load_timm(path, num_classes=5, img_size=16, num_frames=4)
    assert set(report.fresh) == {"fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"}
    assert net(clips()).shape == (2, 5)
    tokens, _ = load_timm(path, num_classes=0, img_size=16, num_frames=4, global_pool="")
    expected = load_model(checkpoint).encoder(clips()).tokens
    torch.testing.assert_close(tokens.eval()(clips()), expected, rtol=1e-4, atol=1e-5)


def test_official_fine_tuned_files_keep_their_head(checkpoint: str, tmp_path: Path) -> None:
    state = {
        name.removeprefix("encoder."): value
        for name, value in official(checkpoint).items()
        if name.startswith("encoder.") and not name.startswith("encoder.norm.")
    }
    head = {"head.weight": torch.ones(5, 192), "head.bias": torch.zeros(5)}
    norm = {"fc_norm.weight": torch.ones(192), "fc_norm.bias": torch.zeros(192)}
    path = save({**state, **head, **norm}, tmp_path / "v.pth")
    net, report = load_timm(path, num_classes=5, img_size=16, num_frames=4)
    assert report.fresh == ()
    assert torch.equal(net.head.weight, head["head.weight"])


@pytest.mark.parametrize(
    "switches",
    [
        (),
        ("encoder.scores=cosine", "encoder.init_values=0.1", "encoder.qkv_bias=all"),
        ("encoder.position=learned", "encoder.qkv_bias=none"),
        # SIGMA's: prototypes and projection stay behind.
        ("target=clusters", "target@target.values=pixels_channel_norm", "target.num_prototypes=4"),
    ],
)
def test_an_export_needs_nothing_but_torch(
    switches: tuple[str, ...], make_checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    path, out = make_checkpoint("videomae", *switches), tmp_path / "out"
    assert export(path, str(out), "video") < 1e-10
    spec = importlib.util.spec_from_file_location("plain_video", out / "plain_video.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert "maskpre" not in (out / "plain_video.py").read_text()
    expected = load_model(path).encoder(clips()).tokens
    torch.testing.assert_close(module.load(out)(clips()), expected, rtol=1e-4, atol=1e-4)
    net, report = load_timm(str(out), num_classes=0, global_pool="")
    assert report.left_out == {}
    torch.testing.assert_close(net.eval()(clips()), expected, rtol=1e-4, atol=1e-4)


def test_formats_that_do_not_fit_say_which_does(checkpoint: str, mae: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"timm has no model like .*VideoViT; use format=video"):
        export(checkpoint, str(tmp_path / "out"), "timm")
    with pytest.raises(UserError, match=r"format=video holds an encoder of clips, .* use format=timm"):
        export(mae, str(tmp_path / "out"), "video")
    assert export(checkpoint, str(tmp_path / "full"), "full") == 0
