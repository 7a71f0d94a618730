"""What fine-tuning writes is a source of weights for every command."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch

from maskpre.checkpoints.export import export
from maskpre.checkpoints.load import load_into, load_model, load_timm
from maskpre.checkpoints.read import read_torch
from maskpre.checkpoints.sources import open_source
from maskpre.errors import UserError
from maskpre.finetune import main as finetune
from maskpre.probe import main as probe

KINDS = ["mae", "simmim_vit", "swin", "convnet", "videomae"]
POOLED = ["mae", "simmim_vit", "videomae"]
SHORT = ["recipe.batch_size=8", "recipe.epochs=1", "recipe.optim.schedule.warmup_epochs=0"]
OPTIONS = {
    "mae": ["recipe.ema_decay=0.5"],
    "convnet": ["recipe.optim.decay_policy=spark", "recipe.optim.layer_decay=null"],
    "videomae": ["recipe.optim.decay_policy=videomae"],
}


def data_of(kind: str, pictures: Path, cache: Path) -> list[str]:
    """Overrides of two classes of pictures, or ten of clips."""
    if kind == "videomae":
        sizes = ["data.image_size=16", "data.num_frames=4", "data.num_train=16", "data.num_val=8"]
        return ["data=demo_video", f"data.cache_dir={cache}", *sizes, "data.num_workers=0"]
    folders = [f"data.root={pictures / 'train'}", f"data.val_root={pictures / 'val'}", "data.labels=folders"]
    return ["data=folder", *folders, "data.image_size=32", "data.num_workers=0"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def with_arguments(command: Callable[[], None], *arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["command", *arguments])
        command()

    return with_arguments


@pytest.fixture(scope="module")
def made(
    make_checkpoint: Callable[..., str],
    tmp_path_factory: pytest.TempPathFactory,
    picture_folders: Path,
    demo_cache: Path,
) -> Callable[[str], tuple[str, list[str]]]:
    """Fine-tunes one of the models once; gives the checkpoint and the data's overrides."""
    known: dict[str, tuple[str, list[str]]] = {}

    def make(kind: str) -> tuple[str, list[str]]:
        if kind not in known:
            folder = tmp_path_factory.mktemp("runs") / kind
            data = data_of(kind, picture_folders, demo_cache)
            source = f"checkpoint={make_checkpoint(kind)}"
            with pytest.MonkeyPatch.context() as patch:
                arguments = [source, *data, *SHORT, *OPTIONS.get(kind, []), f"run_dir={folder}"]
                patch.setattr(sys, "argv", ["finetune", *arguments])
                finetune()
            known[kind] = (str(folder / "checkpoints/last.ckpt"), data)
        return known[kind]

    return make


def trained(path: str, prefix: str) -> dict[str, torch.Tensor]:
    state = read_torch(path)["state_dict"]
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


@pytest.mark.parametrize("kind", KINDS)
def test_the_classifier_comes_back_with_its_head(
    kind: str, made: Callable[..., tuple[str, list[str]]]
) -> None:
    path, _ = made(kind)
    num_classes = 10 if kind == "videomae" else 2
    net, report = load_timm(path, num_classes=num_classes)
    expected = trained(path, "ema.module." if kind == "mae" else "model.")
    assert report.kind == ("fine-tuned, averaged weights" if kind == "mae" else "fine-tuned")
    assert (report.fresh, dict(report.left_out)) == ((), {})
    assert all(torch.equal(value, expected[name]) for name, value in net.state_dict().items())
    other, report = load_timm(path, num_classes=5, head_rows=[1, 0, 0, 1, 0])
    head = next(name for name, value in other.named_parameters() if len(value) == 5 and value.ndim == 2)
    assert torch.equal(other.state_dict()[head], expected[head][[1, 0, 0, 1, 0]])
    _, report = load_timm(path, num_classes=5)
    assert {name.rpartition(".")[0] for name in report.fresh} == {head.rpartition(".")[0]}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_probed(
    kind: str,
    made: Callable[..., tuple[str, list[str]]],
    run: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, data = made(kind)
    run(probe, f"checkpoint={path}", *data, "probe=knn", "probe.num_neighbors=5")
    printed = capsys.readouterr().out
    assert f"{path} (fine-tuned" in printed
    assert "fresh" not in printed.partition("tensors loaded")[2]
    assert printed.strip().splitlines()[-1].startswith("top-1 ")


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_fine_tuned_further(
    kind: str,
    made: Callable[..., tuple[str, list[str]]],
    run: Callable[..., None],
    tmp_path: Path,
) -> None:
    path, data = made(kind)
    frozen = [*SHORT, "recipe.optim.base_lr=1e-20", "recipe.optim.schedule.min_lr=0", *OPTIONS.get(kind, [])]
    run(finetune, f"checkpoint={path}", *data, *frozen, f"run_dir={tmp_path}")
    before = open_source(path).encoder()
    after = open_source(str(tmp_path / "checkpoints/last.ckpt")).encoder()
    parameters = [name for name in before if "running" not in name and "num_batches" not in name]
    assert before.keys() == after.keys()
    assert all(torch.allclose(before[name], after[name], rtol=0, atol=1e-12) for name in parameters)


@pytest.mark.parametrize("kind", ["mae", "swin", "convnet", "videomae"])
def test_pre_training_starts_from_it(
    kind: str, made: Callable[..., tuple[str, list[str]]], make_checkpoint: Callable[..., str]
) -> None:
    path, _ = made(kind)
    model = load_model(make_checkpoint(kind))
    report = load_into(model, path)
    assert all(not name.startswith("encoder.") or name == "encoder.mask_token" for name in report.fresh)
    norm = "fc_norm.weight" if kind in POOLED else "norm.weight"
    if kind != "convnet":
        assert torch.equal(model.encoder.norm.weight, open_source(path).encoder()[norm])


@pytest.mark.parametrize("kind", ["mae", "simmim_vit", "swin", "convnet"])
def test_timm_rebuilds_it(kind: str, made: Callable[..., tuple[str, list[str]]], tmp_path: Path) -> None:
    path, _ = made(kind)
    assert export(path, str(tmp_path / "out"), "timm") < 1e-12
    net = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    same, _ = load_timm(path, num_classes=2)
    pictures = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(net(pictures), same.eval()(pictures))
    assert load_timm(str(tmp_path / "out"), num_classes=2)[1].fresh == ()
    with pytest.raises(UserError, match="format=full holds a model of pre-training, not a classifier; use"):
        export(path, str(tmp_path / "full"), "full")


def test_clips_are_classified_in_plain_torch(
    made: Callable[..., tuple[str, list[str]]], tmp_path: Path
) -> None:
    path, _ = made("videomae")
    assert export(path, str(tmp_path / "out"), "video") < 1e-5
    assert load_timm(str(tmp_path / "out"), num_classes=10)[1].fresh == ()
    with pytest.raises(UserError, match=r"timm has no model like .*VideoViT; use format=video"):
        export(path, str(tmp_path / "timm"), "timm")
    with pytest.raises(UserError, match=r"format=video holds a classifier of clips, not swin"):
        export(made("swin")[0], str(tmp_path / "swin"), "video")


def test_the_average_is_there_or_told_missing(made: Callable[..., tuple[str, list[str]]]) -> None:
    path, _ = made("mae")
    assert open_source(f"ema:{path}").encoder().keys() == open_source(path).encoder().keys()
    with pytest.raises(UserError, match=r"last\.ckpt holds no moving average of the classifier's weights"):
        open_source(f"ema:{made('swin')[0]}")


@pytest.mark.parametrize("kind", ["mae", "videomae"])
def test_one_without_a_record_is_told(
    kind: str, made: Callable[..., tuple[str, list[str]]], tmp_path: Path
) -> None:
    content = read_torch(made(kind)[0])
    del content["classifier"]
    torch.save(content, tmp_path / "old.ckpt")
    with pytest.raises(UserError, match=r"old\.ckpt holds a classifier without a record of its network"):
        open_source(str(tmp_path / "old.ckpt"))


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ({"blocks.0.attn.qkv.weight": (9, 3)}, "MAE, but no 'patch_embed.proj.weight'"),
        (
            {"x.blocks.0.attn.qkv.weight": (9, 3), "patch_embed.proj.weight": (3, 3, 2, 4, 4)},
            "VideoMAE, but no 'blocks.0.mlp.fc1.weight'",
        ),
        (
            {
                "patch_embed.proj.weight": (192, 3, 4, 4),
                "blocks.0.mlp.fc1.weight": (8, 192),
                "blocks.0.attn.qkv.weight": (576, 192),
                "pos_embed": (1, 6, 192),
            },
            "MAE, but 6 positions, 1 of them prefix, belong to no square grid",
        ),
    ],
)
def test_half_a_layout_is_told(names: dict[str, tuple[int, ...]], told: str, tmp_path: Path) -> None:
    torch.save({name: torch.zeros(shape) for name, shape in names.items()}, tmp_path / "half.pth")
    with pytest.raises(UserError, match=rf"half\.pth has names like a file of {told}"):
        load_timm(str(tmp_path / "half.pth"), num_classes=2)
