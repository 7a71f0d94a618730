"""A teacher answers as timm's network does, learns nothing, and is stored nowhere."""

import copy

import pytest
import timm
import torch
from torch.nn.functional import interpolate

from maskpre.checkpoints.save import atomic_save
from maskpre.errors import UserError
from maskpre.ops.noise import GivenNoise
from maskpre.teachers.frozen import FrozenTeacher
from maskpre.types import OUTPUT, Taps

NAME = "vit_tiny_patch16_224"
CLIP = "vit_base_patch16_clip_quickgelu_224"
SIZES = {"patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4}
VIEW = {"view_size": 32, "view_mean": [0.5, 0.4, 0.3], "view_std": [0.2, 0.3, 0.4]}


def teacher(name=NAME, weights=None, **options):
    return FrozenTeacher(name=name, weights=weights, **{**VIEW, **SIZES, **options})


def timms(made, name=NAME, img_size=32, **options):
    net = timm.create_model(name, num_classes=0, global_pool="", img_size=img_size, **SIZES, **options)
    net.load_state_dict(made.network.state_dict())
    return net.eval()


def file_of(tmp_path, name=NAME, img_size=32, **options):
    """A file with timm's names, and the network it comes from."""
    torch.manual_seed(1)
    net = timm.create_model(name, img_size=img_size, **{**SIZES, "num_classes": 0, **options}).eval()
    torch.nn.init.normal_(net.pos_embed)
    path = tmp_path / f"{name}.pth"
    atomic_save({"state_dict": net.state_dict()}, path)
    return str(path), net


def test_it_reads_the_view_in_its_own_size_and_statistics() -> None:
    made = teacher(img_size=24, mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7])
    x = torch.randn(2, 3, 32, 32)
    pixels = (
        x * torch.tensor(VIEW["view_std"])[:, None, None] + torch.tensor(VIEW["view_mean"])[:, None, None]
    )
    small = interpolate(pixels, (24, 24), mode="bicubic", align_corners=False)
    own = (small - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / torch.tensor([0.5, 0.6, 0.7])[
        :, None, None
    ]
    torch.testing.assert_close(made.look(x), own, rtol=1e-4, atol=1e-5)
    expected = timms(made, img_size=24).forward_features(own)
    torch.testing.assert_close(made(x).tokens, expected[:, 1:], rtol=1e-4, atol=1e-5)
    assert made.spec.out_grid.shape == (3, 3)


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "swin_tiny_patch4_window7_224"])
def test_any_timm_model_gives_its_final_features(name) -> None:
    options = dict.fromkeys(SIZES)
    made = teacher(name, view_size=64 if "swin" not in name else 224, **options)
    size = made.spec.grid.input_size
    encoded = made(torch.randn(1, 3, *size))
    assert encoded.tokens.shape == (1, made.spec.out_grid.num_cells, made.spec.embed_dim)
    assert encoded.grid == made.spec.out_grid
    assert (made.spec.num_layers, made.spec.class_attention) == (0, False)


def test_nothing_of_it_is_stored_trained_or_switched() -> None:
    made = teacher()
    holder = torch.nn.ModuleDict({"teacher": made})
    assert not holder.state_dict()
    assert not list(holder.parameters())
    holder.load_state_dict({}, strict=True)
    holder.train()
    assert not any(part.training for part in made.network.modules())
    assert not any(weight.requires_grad for weight in made.network.parameters())
    x = torch.randn(1, 3, 32, 32, requires_grad=True)
    encoded = made(x, taps=Taps(hidden=frozenset({2}), attention=frozenset({3}), output=True))
    seen = (encoded.tokens, encoded.prefix, encoded.hidden[2], encoded.attention[3])
    assert not any(tensor.requires_grad for tensor in seen)


def test_it_moves_with_its_holder_and_is_shared_by_copies() -> None:
    made = teacher()
    twin = copy.deepcopy(torch.nn.ModuleDict({"teacher": made}))
    assert twin["teacher"].network is made.network
    twin.double()
    assert made(torch.randn(1, 3, 32, 32, dtype=torch.float64)).tokens.dtype is torch.float64


def test_its_initialisation_draws_nothing_from_the_run() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = teacher(projection_dim=8)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(4)
    second = teacher(projection_dim=8)
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(first(x).tokens, second(x).tokens)


def test_in_bfloat16_it_is_about_the_same_also_inside_autocast() -> None:
    x = torch.randn(2, 3, 32, 32)
    exact, short = teacher()(x).tokens, teacher(precision="bf16")
    with torch.autocast("cpu", dtype=torch.float16):
        rounded = short(x).tokens
    assert rounded.dtype is torch.bfloat16
    similar = torch.cosine_similarity(exact, rounded.float(), dim=-1)
    assert similar.min() > 0.99


def test_only_what_is_tapped_runs(monkeypatch) -> None:
    made = teacher()
    ran = []
    for number, block in enumerate(made.network.blocks, start=1):
        block.norm2.register_forward_hook(lambda *_, number=number: ran.append(number))
    made.network.norm.register_forward_hook(lambda *_: ran.append("norm"))
    x = torch.randn(1, 3, 32, 32)
    wanted = {
        Taps(hidden=frozenset({1})): [1],
        Taps(attention=frozenset({3})): [1, 2],
        Taps(hidden=frozenset({0})): [],
        OUTPUT: [1, 2, 3, "norm"],
    }
    for taps, blocks in wanted.items():
        ran.clear()
        made(x, None, GivenNoise({}), taps)
        assert ran == blocks


def test_hidden_layers_and_attention_are_what_timms_blocks_compute() -> None:
    made = teacher(CLIP)
    net = timms(made, CLIP)
    net.blocks[1].attn.fused_attn = False
    probabilities = []
    net.blocks[1].attn.attn_drop.register_forward_pre_hook(lambda _, given: probabilities.append(given[0]))
    outputs = []
    for block in net.blocks:
        block.register_forward_hook(lambda _, given, output: outputs.append(output))
    x = torch.randn(2, 3, 32, 32)
    net.forward_features(made.look(x))
    encoded = made(x, taps=Taps(hidden=frozenset({1, 3}), attention=frozenset({2})))
    assert set(encoded.hidden) == {1, 3}
    for layer in (1, 3):
        torch.testing.assert_close(encoded.hidden[layer], outputs[layer - 1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(encoded.attention[2], probabilities[0][:, :, 0], rtol=1e-4, atol=1e-6)


def test_a_files_weights_are_used_and_its_positions_resized(tmp_path) -> None:
    path, net = file_of(tmp_path, img_size=32)
    same = teacher(weights=path, mean=VIEW["view_mean"], std=VIEW["view_std"])
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(same(x).tokens, net.forward_features(x)[:, 1:], rtol=1e-4, atol=1e-5)
    other = teacher(weights=path, img_size=24)
    cells = net.pos_embed[:, 1:].detach().unflatten(1, (4, 4)).permute(0, 3, 1, 2)
    resized = interpolate(cells, (3, 3), mode="bicubic", align_corners=False).flatten(2).mT
    torch.testing.assert_close(other.network.pos_embed[:, 1:], resized)
    torch.testing.assert_close(other.network.pos_embed[:, :1], net.pos_embed[:, :1])


def test_the_projection_is_applied_to_all_final_tokens(tmp_path) -> None:
    path, net = file_of(tmp_path, CLIP, num_classes=20)
    made = teacher(CLIP, weights=path, projection_dim=20)
    encoded = made(x := torch.randn(1, 3, 32, 32))
    tokens = net.forward_features(made.look(x)) @ net.head.weight.T
    torch.testing.assert_close(encoded.with_class(), tokens, rtol=1e-4, atol=1e-5)
    assert (made.spec.embed_dim, made.spec.layer_dim) == (20, 32)


WRONG = {
    "missing": ({}, "is no file, no folder, and no timm model"),
    "wider": ({"embed_dim": 64}, r"cls_token|\(64, 3, 8, 8\)|has shape"),
    "deeper": ({"depth": 4}, "has 12 tensors that the teacher lacks: blocks.3"),
    "shallower": ({"depth": 2}, "lacks 12 tensors of the teacher: blocks.2"),
    "coarser": ({"patch_size": 16}, r"patch_embed.proj.weight has shape \(32, 3, 16, 16\), the teacher's is"),
    "no projection": ({"projection_dim": 7}, r"holds none where the teacher's projection is \(7, 32\)"),
}


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_file_that_does_not_fit_is_refused_before_anything_runs(tmp_path, wrong, device) -> None:
    changes, message = WRONG[wrong]
    own = {key: value for key, value in changes.items() if key == "projection_dim"}
    other = {key: value for key, value in changes.items() if key not in own}
    path, _ = file_of(tmp_path, **{**SIZES, **other}) if wrong != "missing" else ("no/such.pth", None)
    with torch.device(device), pytest.raises(UserError, match=message):
        teacher(weights=path, **own)


def test_statistics_must_fit_the_channels() -> None:
    with pytest.raises(ValueError, match="mean has 3 and std 3 values, the view has 1 channels"):
        teacher(view_mean=[0.5], view_std=[0.5])
