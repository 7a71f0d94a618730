"""BEiT-style vision transformers from timm: relative-position biases, LayerScale, separate q and v biases."""

from dataclasses import dataclass
from functools import partial
from typing import Literal, cast

import torch
from jaxtyping import Float, Int, Int32
from timm.models.beit import Attention, Beit, Block, RelativePositionBias
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from maskpre.encoders.attend import backend_for_bias, backend_of
from maskpre.encoders.base import Encoder, EncoderSpec, Hidden
from maskpre.encoders.blocks import Scales, drop_path_rates, residual_scales, run_blocks
from maskpre.encoders.create import check_heads, create_timm
from maskpre.encoders.init_simmim import STD, init_simmim_vit
from maskpre.encoders.patches import embed_patches
from maskpre.ops.masked_attention import masked_attention_qkv
from maskpre.ops.positions import relative_codes, relative_offset
from maskpre.types import Encoded, Grid, MaskPlan, Noise

RelativePosition = Literal["none", "shared", "per_block", "both"]


@dataclass(frozen=True)
class Codes:
    """A code per token, of all samples or of each, that says which bias a pair of tokens has."""

    values: Int32[Tensor, "*b n"]
    offset: int


# Biases are looked up per pair once for all blocks, or by the attention itself, from the tokens' codes.
Places = Int[Tensor, "*b n n"] | Codes | None


class BeitViT(Encoder):
    """Any timm `Beit` by name (Bao et al. 2022), the ViT of SimMIM; sizes given here replace
    the named model's.

    `hidden` "replace" puts a learnt token where a patch is hidden, before any absolute position (SimMIM);
    "drop" encodes visible patches only, with the biases of the pairs that are left. The class token is never
    hidden. `rel_pos`: one table of biases for all blocks (SimMIM's pre-training), one per block (its
    fine-tuning), both added, or none. `position` "learned" adds one vector per token. `norm` "tokens" ends
    with a layer norm; "pooled" leaves it to whoever pools the tokens. `init_values` None means no LayerScale.
    `init` "simmim" is SimMIM's, "timm" keeps the library's. `drop_path_rate` is the last block's, rising
    linearly.

    Raises ValueError if the name is no timm Beit or sizes don't fit.
    """

    def __init__(
        self,
        *,
        name: str,
        img_size: int,
        in_chans: int = 3,
        patch_size: int | None = None,
        embed_dim: int | None = None,
        depth: int | None = None,
        num_heads: int | None = None,
        mlp_ratio: float | None = None,
        qkv_bias: bool = True,
        init_values: float | None = 0.1,
        rel_pos: RelativePosition = "shared",
        position: Literal["none", "learned"] = "none",
        norm: Literal["tokens", "pooled"] = "tokens",
        drop_path_rate: float = 0.0,
        hidden: Hidden = "replace",
        init: Literal["simmim", "timm"] = "simmim",
    ) -> None:
        super().__init__()
        sizes = {
            "patch_size": patch_size,
            "embed_dim": embed_dim,
            "depth": depth,
            "num_heads": num_heads,
            "mlp_ratio": mlp_ratio,
            "qkv_bias": qkv_bias,
            # timm takes 0 for "no LayerScale"; None would leave the named model's.
            "init_values": init_values or 0.0,
            "use_rel_pos_bias": rel_pos in ("per_block", "both"),
            "use_shared_rel_pos_bias": rel_pos in ("shared", "both"),
            "use_abs_pos_emb": position == "learned",
            "use_fc_norm": norm == "pooled",
        }
        net = create_timm(name, Beit, img_size=img_size, in_chans=in_chans, options=sizes)
        check_heads(cast(Block, net.blocks[0]).attn.num_heads, net.embed_dim)
        self.patch_embed, self.cls_token, self.pos_embed = net.patch_embed, net.cls_token, net.pos_embed
        self.rel_pos_bias, self.blocks, self.norm = net.rel_pos_bias, net.blocks, net.norm
        self.mask_token = nn.Parameter(torch.empty(1, 1, net.embed_dim)) if hidden == "replace" else None
        codes = relative_codes(net.patch_embed.grid_size)
        self.register_buffer("_codes", nn.functional.pad(codes, (1, 0), value=-1), persistent=False)
        self._drop_path = drop_path_rates(drop_path_rate, len(self.blocks))
        self._recompute = False
        self.spec = _spec(net, in_chans=in_chans, hidden=hidden)
        self._init(init)

    def _init(self, init: str) -> None:
        if init == "simmim":
            tokens = (self.cls_token, self.mask_token, self.pos_embed)
            init_simmim_vit(self, blocks=self.blocks, tokens=[token for token in tokens if token is not None])
        elif self.mask_token is not None:
            nn.init.trunc_normal_(self.mask_token, std=STD)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute block activations in the backward pass."""
        self._recompute = enable

    def _embed(self, x: Tensor, plan: MaskPlan | None, keep: Tensor | None) -> Float[Tensor, "b n d"]:
        tokens = embed_patches(self.patch_embed, x, self.spec.grid, keep)
        if plan is not None and self.mask_token is not None:
            tokens = torch.where(plan.mask[..., None], self.mask_token.to(tokens.dtype), tokens)
        first: Tensor = self.cls_token
        if self.pos_embed is not None:
            first = first + self.pos_embed[:, :1]
            places = self.pos_embed[:, 1:]
            tokens = tokens + (places if keep is None else places[0][keep])
        return torch.cat([first.expand(len(x), -1, -1), tokens], dim=1)

    def _places(self, tokens: Float[Tensor, "b n d"], keep: Tensor | None) -> Places:
        """Where tokens stand to each other, the class token first."""
        attn = cast(Block, self.blocks[0]).attn
        pairs = cast(Tensor | None, (self.rel_pos_bias or attn).relative_position_index)
        if pairs is None:
            return None
        ids = None if keep is None else nn.functional.pad(keep + 1, (1, 0))
        if backend_for_bias(attn, tokens) != "sdpa":
            codes = cast(Tensor, self._codes)
            return Codes(codes if ids is None else codes[ids], relative_offset(self.patch_embed.grid_size))
        return pairs if ids is None else pairs[ids[:, :, None], ids[:, None, :]]

    def forward(
        self, x: Float[Tensor, "b c h w"], plan: MaskPlan | None = None, noise: Noise | None = None
    ) -> Encoded:
        """Encode under the plan; see `Encoder.forward`."""
        keep = plan.keep if plan is not None and self.spec.hidden == "drop" else None
        tokens = self._embed(x, plan, keep)
        places = self._places(tokens, keep)
        shared = None if self.rel_pos_bias is None else _bias(self.rel_pos_bias, places)
        tokens = run_blocks(
            self.blocks,
            tokens,
            residual_scales(noise, self._drop_path, training=self.training),
            recompute=self._recompute,
            run=partial(_run_block, places=places, shared=shared),
        )
        tokens = self.norm(tokens)
        covers = None if keep is None else "visible"
        return Encoded(tokens[:, 1:], self.spec.out_grid, ids=keep, covers=covers, prefix=tokens[:, :1])


def _bias(holder: Attention | RelativePositionBias, places: Places) -> Float[Tensor, "..."] | None:
    """The table (k, r) if tokens have codes, else biases of all pairs (*b, k, n, n); None without a table."""
    if places is None or holder.relative_position_bias_table is None:
        return None
    table = holder.relative_position_bias_table.t().contiguous()
    if isinstance(places, Codes):
        return table.to(torch.promote_types(table.dtype, torch.float32))
    biases = table.index_select(1, places.flatten()).unflatten(1, places.shape)
    return biases.movedim(0, -3).contiguous()


def _attend(
    attn: Attention, x: Float[Tensor, "b n d"], places: Places, bias: Tensor | None
) -> Float[Tensor, "b n d"]:
    """BEiT's attention with biases for all samples or for each; see `_bias`."""
    offset = None if attn.q_bias is None else torch.cat((attn.q_bias, cast(Tensor, attn.k_bias), attn.v_bias))
    qkv = linear(x, attn.qkv.weight, offset).unflatten(2, (3, attn.num_heads, -1))
    if places is None:
        mixed = masked_attention_qkv(qkv, backend=backend_of(attn))
    elif isinstance(places, Codes):
        mixed = masked_attention_qkv(
            qkv,
            bias_table=bias,
            code=places.values,
            code_offset=places.offset,
            backend=backend_of(attn),
        )
    else:
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2)
    return attn.proj(mixed.flatten(2))


def _branch(value: Tensor, gamma: Tensor | None, scale: Tensor | None) -> Tensor:
    value = value if gamma is None else gamma * value
    return value if scale is None else scale.to(value.dtype) * value


def _run_block(
    block: Block,
    x: Float[Tensor, "b n d"],
    scales: Scales,
    *,
    places: Places,
    shared: Float[Tensor, "..."] | None,
) -> Float[Tensor, "b n d"]:
    """One block under the shared bias, its own, or both."""
    first, second = scales or (None, None)
    own = _bias(block.attn, places)
    bias = shared if own is None else own if shared is None else own + shared
    x = x + _branch(_attend(block.attn, block.norm1(x), places, bias), block.gamma_1, first)
    return x + _branch(block.mlp(block.norm2(x)), block.gamma_2, second)


def _spec(net: Beit, *, in_chans: int, hidden: Hidden) -> EncoderSpec:
    grid = Grid(tuple(net.patch_embed.grid_size), tuple(net.patch_embed.patch_size))
    return EncoderSpec(
        embed_dim=net.embed_dim,
        grid=grid,
        out_grid=grid,
        num_prefix_tokens=1,
        in_chans=in_chans,
        hidden=hidden,
    )
