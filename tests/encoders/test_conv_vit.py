import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, gelu, layer_norm, linear, scaled_dot_product_attention

from maskpre.encoders.conv_vit import ConvViT
from maskpre.ops.noise import GivenNoise, KeyedNoise
from maskpre.ops.positions import sincos_2d
from maskpre.types import Grid, MaskPlan

SMALL = {
    "img_size": 32,
    "patch_sizes": (2, 2, 2),
    "embed_dims": (8, 12, 16),
    "depths": (2, 1, 2),
    "num_heads": 4,
    "mlp_ratios": (2.0, 3.0, 4.0),
}
VARIANTS = [
    {},
    {"multi_scale": False},
    {"img_size": 48, "patch_sizes": (4, 2, 2), "in_chans": 1},
    {"img_size": 36, "patch_sizes": (2, 3, 1), "depths": (1, 2, 1)},
]


def stir(encoder: nn.Module) -> nn.Module:
    """Give every learnt parameter a value that matters."""
    for parameter in encoder.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.2)
    return encoder.double()


class Reference:
    """ConvMAE's encoder written plainly: whole maps, masks multiplied in, all cells computed."""

    def __init__(self, weights: dict[str, Tensor], *, sizes: dict, visible: Tensor) -> None:
        self.weights, self.visible = weights, visible
        self.patch_sizes, self.depths, self.heads = sizes["patch_sizes"], sizes["depths"], sizes["num_heads"]

    def norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return layer_norm(x, x.shape[-1:], weight, bias, eps)

    def conv(self, name: str, x: Tensor, **options: int) -> Tensor:
        return conv2d(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], **options)

    def linear(self, name: str, x: Tensor) -> Tensor:
        return linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def norm_map(self, name: str, x: Tensor) -> Tensor:
        return self.norm(name, x.permute(0, 2, 3, 1), 1e-5).permute(0, 3, 1, 2)

    def embed(self, number: int, x: Tensor) -> Tensor:
        patches = self.conv(f"patch_embed{number}.proj", x, stride=self.patch_sizes[number - 1])
        return gelu(self.norm_map(f"patch_embed{number}.norm", patches))

    def conv_block(self, name: str, x: Tensor) -> Tensor:
        mask = nn.functional.interpolate(self.visible, size=x.shape[2:])
        within = mask * self.conv(f"{name}.conv1", self.norm_map(f"{name}.norm1", x))
        x = x + self.conv(f"{name}.conv2", self.conv(f"{name}.attn", within, padding=2, groups=x.shape[1]))
        hidden = gelu(self.conv(f"{name}.mlp.fc1", self.norm_map(f"{name}.norm2", x)))
        return x + self.conv(f"{name}.mlp.fc2", hidden)

    def block(self, name: str, x: Tensor) -> Tensor:
        qkv = self.linear(f"{name}.attn.qkv", self.norm(f"{name}.norm1", x, 1e-6))
        parts = qkv.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)
        x = x + self.linear(f"{name}.attn.proj", mixed)
        hidden = gelu(self.linear(f"{name}.mlp.fc1", self.norm(f"{name}.norm2", x, 1e-6)))
        return x + self.linear(f"{name}.mlp.fc2", hidden)

    def before_norm(self, x: Tensor, keep: Tensor) -> Tensor:
        skips = []
        for number in (1, 2):
            x = self.embed(number, x)
            for i in range(self.depths[number - 1]):
                x = self.conv_block(f"blocks{number}.{i}", x)
            name = f"stage{number}_output_decode"
            if f"{name}.weight" in self.weights:
                skips.append(self.conv(name, x, stride=self.weights[f"{name}.weight"].shape[-1]))
        cells = self.linear("patch_embed4", self.embed(3, x).flatten(2).transpose(1, 2))
        rows = torch.arange(len(keep))[:, None]
        tokens = (cells + self.weights["pos_embed"])[rows, keep]
        for i in range(self.depths[2]):
            tokens = self.block(f"blocks3.{i}", tokens)
        for skip in skips:
            tokens = tokens + skip.flatten(2).transpose(1, 2)[rows, keep]
        return tokens

    def __call__(self, x: Tensor, keep: Tensor) -> Tensor:
        return self.norm("norm", self.before_norm(x, keep), 1e-6)


def leaves(encoder: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone().requires_grad_() for name, value in encoder.state_dict().items()}


def compare_with_reference(encoder: ConvViT, sizes: dict, plan: MaskPlan | None) -> None:
    """Tokens and every gradient, in float64."""
    grid = encoder.spec.grid
    x = torch.randn(3, encoder.spec.in_chans, sizes["img_size"], sizes["img_size"], dtype=torch.float64)
    keep = torch.arange(grid.num_cells).expand(3, -1) if plan is None else plan.keep
    mask = torch.zeros(3, grid.num_cells, dtype=torch.bool) if plan is None else plan.mask
    weights = leaves(encoder)
    reference = Reference(weights, sizes=sizes, visible=(~mask).double().view(3, 1, *grid.shape))
    expected, encoded = reference(x, keep), encoder(x, plan)
    torch.testing.assert_close(encoded.tokens, expected, rtol=1e-10, atol=1e-10)
    pull = torch.randn_like(expected)
    (expected * pull).sum().backward()
    (encoded.tokens * pull).sum().backward()
    for name, parameter in encoder.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, weights[name].grad, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("changes", VARIANTS)
@pytest.mark.parametrize("masked", [True, False])
def test_tokens_and_gradients_are_those_of_masked_maps(
    random_plan: Callable[..., MaskPlan], changes: dict, masked: bool
) -> None:
    sizes = {**SMALL, **changes}
    encoder = stir(ConvViT(**sizes))
    plan = random_plan(encoder.spec.grid, batch=3, num_visible=5) if masked else None
    compare_with_reference(encoder, sizes, plan)


def test_whole_pictures_are_pictures_without_hidden_cells(random_plan: Callable[..., MaskPlan]) -> None:
    encoder = stir(ConvViT(**SMALL))
    plan = random_plan(encoder.spec.grid, batch=2, num_visible=16)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    whole, kept = encoder(x), encoder(x, plan)
    assert (whole.ids, whole.covers) == (None, None)
    assert kept.ids is plan.keep
    assert kept.covers == "visible"
    torch.testing.assert_close(kept.tokens, whole.tokens[torch.arange(2)[:, None], plan.keep])


def test_hidden_pixels_have_no_influence(random_plan: Callable[..., MaskPlan]) -> None:
    encoder = stir(ConvViT(**SMALL))
    plan = random_plan(encoder.spec.grid, batch=2, num_visible=6)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    hidden = plan.mask.unflatten(1, (4, 4)).repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None]
    tokens = encoder(x, plan).tokens
    torch.testing.assert_close(tokens, encoder(x + 5 * hidden, plan).tokens, rtol=0, atol=0)
    assert not torch.allclose(tokens, encoder(x + 5 * ~hidden, plan).tokens)


def test_the_convolutions_see_beyond_their_cell(random_plan: Callable[..., MaskPlan]) -> None:
    """Without a transformer, a visible neighbour still counts, and a hidden one doesn't."""
    encoder = stir(ConvViT(**{**SMALL, "depths": (1, 1, 0)}))
    order = torch.tensor([[5, 6, *(i for i in range(16) if i not in (5, 6))]])
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    changed = x.clone()
    changed[:, :, 8:16, 16:24] += 1
    both = MaskPlan.from_order(order, num_visible=2, grid=encoder.spec.grid)
    alone = MaskPlan.from_order(order, num_visible=1, grid=encoder.spec.grid)
    assert not torch.allclose(encoder(x, both).tokens[:, 0], encoder(changed, both).tokens[:, 0])
    torch.testing.assert_close(encoder(x, alone).tokens, encoder(changed, alone).tokens, rtol=0, atol=0)


def test_recomputed_activations_give_the_same_gradients(random_plan: Callable[..., MaskPlan]) -> None:
    encoder = stir(ConvViT(**SMALL, drop_path_rate=0.3)).train()
    plan = random_plan(encoder.spec.grid, batch=2, num_visible=6)
    noise = KeyedNoise(seed=0, epoch=torch.zeros(2, dtype=torch.int64), index=torch.tensor([4, 7]))
    x, grads = torch.randn(2, 3, 32, 32, dtype=torch.float64), []
    for recompute in (False, True):
        encoder.set_grad_checkpointing(recompute)
        encoder.zero_grad()
        encoder(x, plan, noise).tokens.square().mean().backward()
        grads.append({name: p.grad.clone() for name, p in encoder.named_parameters() if p.requires_grad})
    for name, value in grads[0].items():
        torch.testing.assert_close(value, grads[1][name], msg=name)


def test_stochastic_depth_drops_branches_in_all_stages() -> None:
    """With every branch after the first block dropped, the first block alone is left."""
    encoder = stir(ConvViT(**SMALL, drop_path_rate=0.5)).train()
    assert encoder._drop_path == pytest.approx([0.0, 0.125, 0.25, 0.375, 0.5])
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    dropped = encoder(x, noise=GivenNoise({"drop_path": torch.zeros(1, 10)})).tokens
    weights = encoder.state_dict()
    visible = torch.ones(1, 1, 4, 4, dtype=torch.float64)
    shorter = Reference(weights, sizes={**SMALL, "depths": (1, 0, 0)}, visible=visible)
    torch.testing.assert_close(dropped, shorter(x, torch.arange(16)[None]))


def test_kept_branches_are_scaled_up() -> None:
    encoder = stir(ConvViT(**{**SMALL, "depths": (1, 1, 0)}, drop_path_rate=0.5)).train()
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    kept = encoder(x, noise=GivenNoise({"drop_path": torch.ones(1, 4)})).tokens
    with torch.no_grad():
        encoder.blocks2[0].conv2.weight.mul_(2)
        encoder.blocks2[0].conv2.bias.mul_(2)
        encoder.blocks2[0].mlp.fc2.weight.mul_(2)
        encoder.blocks2[0].mlp.fc2.bias.mul_(2)
    torch.testing.assert_close(kept, encoder.eval()(x).tokens)


def test_spec_and_positions() -> None:
    encoder = ConvViT(**SMALL, in_chans=2)
    spec = encoder.spec
    assert spec.grid == spec.out_grid == Grid((4, 4), (8, 8))
    assert (spec.embed_dim, spec.num_prefix_tokens, spec.in_chans, spec.hidden) == (16, 0, 2, "drop")
    assert not encoder.pos_embed.requires_grad
    assert torch.equal(encoder.pos_embed[0], sincos_2d((4, 4), 16))


def test_initialisation_is_convmaes() -> None:
    encoder = ConvViT(**{**SMALL, "embed_dims": (64, 96, 128)})
    for weight, bound in [
        (encoder.patch_embed3.proj.weight, math.sqrt(6 / (4 * 96 + 128))),
        (encoder.patch_embed4.weight, math.sqrt(6 / (128 + 128))),
        (encoder.blocks3[0].attn.qkv.weight, math.sqrt(6 / (4 * 128))),
        (encoder.patch_embed2.proj.weight, 1 / math.sqrt(4 * 64)),
        (encoder.blocks1[1].conv2.weight, 1 / math.sqrt(64)),
        (encoder.blocks2[0].attn.weight, 1 / math.sqrt(25)),
        (encoder.blocks2[0].mlp.fc1.weight, 1 / math.sqrt(96)),
        (encoder.stage2_output_decode.weight, 1 / math.sqrt(4 * 96)),
    ]:
        assert weight.abs().max().item() == pytest.approx(bound, rel=0.01)
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert not encoder.patch_embed4.bias.any()
    assert encoder.patch_embed3.proj.bias.any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"img_size": 36}, r"img_size \(36\) must be a multiple of the product of patch_sizes \(8\)"),
        ({"depths": (2, 2)}, r"depths must have 3 entries, one per stage, got \[2, 2\]"),
        ({"num_heads": 5}, r"num_heads \(5\) must divide embed_dim \(16\)"),
        ({"embed_dims": (8, 8, 18), "num_heads": 3}, "needs a width divisible by 4, got 18"),
        ({"hidden": "replace"}, "hidden must be 'drop', got 'replace'"),
    ],
)
def test_impossible_sizes_are_named(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConvViT(**{**SMALL, **changes})
