"""Every encoder attends as the definition says, whatever computes it."""

from collections.abc import Callable

import pytest
import torch
from timm.models.vision_transformer import Block
from torch import nn

from maskpre.encoders.attend import Packing, set_attention
from maskpre.encoders.base import Encoder
from maskpre.encoders.beit import BeitViT
from maskpre.encoders.blocks import run_block
from maskpre.encoders.swin import Swin
from maskpre.encoders.vit import ViT

BEIT = {"name": "beit_base_patch16_224", "img_size": 12, "patch_size": 4, "embed_dim": 32, "depth": 2}
SWIN = {"name": "swin_tiny_patch4_window7_224", "patch_size": 2, "embed_dim": 16, "depths": (2, 1)}
VIT = {"name": "vit_tiny_patch16_224", "img_size": 12, "patch_size": 4, "embed_dim": 32, "depth": 2}
ENCODERS: dict[str, Callable[[], Encoder]] = {
    "vit": lambda: ViT(**VIT, num_heads=2),
    "vit with layer scale": lambda: ViT(**VIT, num_heads=2, init_values=0.5),
    "beit, shared table": lambda: BeitViT(**BEIT, num_heads=2),
    "beit, both tables": lambda: BeitViT(**BEIT, num_heads=2, rel_pos="both"),
    "beit, no table": lambda: BeitViT(**BEIT, num_heads=2, rel_pos="none"),
    "beit, visible cells": lambda: BeitViT(**BEIT, num_heads=2, rel_pos="both", hidden="drop"),
    "swin, shifted": lambda: Swin(**SWIN, img_size=16, num_heads=(1, 2), window_size=4),
    "swin, padded": lambda: Swin(**SWIN, img_size=12, num_heads=(1, 2), window_size=4),
}


def gradients(encoder: Encoder, x, plan):
    out = encoder(x, plan).tokens
    scale = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    weights = [weight for weight in encoder.parameters() if weight.requires_grad]
    found = torch.autograd.grad((out * scale).sum(), weights, allow_unused=True, materialize_grads=True)
    return [out, *found]


@pytest.mark.parametrize("name", ENCODERS)
def test_the_reference_changes_no_value_and_no_gradient(name, random_plan):
    encoder = ENCODERS[name]()
    for weight in encoder.parameters():
        nn.init.normal_(weight, std=0.3)
    encoder.double()
    size = encoder.spec.grid.input_size[0]
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    plan = random_plan(encoder.spec.grid, batch=2, num_visible=4)
    expected = gradients(encoder, x, plan)
    set_attention(encoder, "reference")
    for found, wanted in zip(gradients(encoder, x, plan), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("options", [{}, {"init_values": 0.3}, {"qk_norm": True, "scale_attn_norm": True}])
@pytest.mark.parametrize("scaled", [False, True])
def test_packed_samples_are_run_as_each_alone(options, scaled):
    block = Block(12, 3, qkv_bias=True, norm_layer=nn.LayerNorm, **options).double().eval()
    for weight in block.parameters():
        nn.init.normal_(weight, std=0.4)
    x = torch.randn(1, 8, 12, dtype=torch.float64)
    cu = torch.tensor([0, 3, 3, 8], dtype=torch.int32)
    packing = Packing(cu=cu, longest=5, sample=torch.tensor([0, 0, 0, 2, 2, 2, 2, 2]))
    factors = (torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.5, 1.0, 0.5]))
    scales = tuple(factor.double()[:, None, None] for factor in factors) if scaled else None
    found = run_block(block, x, scales, packing=packing)
    alone = [
        run_block(
            block,
            x[:, first:last],
            None if scales is None else tuple(scale[sample : sample + 1] for scale in scales),
        )
        for sample, (first, last) in {0: (0, 3), 2: (3, 8)}.items()
    ]
    torch.testing.assert_close(found, torch.cat(alone, dim=1))


def test_blocks_that_must_be_called_whole_refuse_packed_samples():
    block = Block(12, 3)
    block.attn.register_forward_hook(lambda *_: None)
    packing = Packing(cu=torch.tensor([0, 4], dtype=torch.int32), longest=4, sample=torch.zeros(4).long())
    with pytest.raises(ValueError, match="hooks can't attend in packed samples"):
        run_block(block, torch.randn(1, 4, 12), None, packing=packing)
