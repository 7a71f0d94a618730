"""timm's plain transformer block, computed by its parts: nothing that nobody reads is computed or kept."""

from dataclasses import dataclass
from itertools import chain
from typing import cast

from jaxtyping import Float
from timm.layers.activations import GELU
from timm.layers.attention import Attention
from timm.layers.mlp import Mlp
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from maskpre.encoders.attend import Packing, backend_of, hooks_on, mix
from maskpre.encoders.qkv import KeylessLinear
from maskpre.ops.attention_choice import Backend
from maskpre.ops.dense import add_linear, add_mlp, norm_linear
from maskpre.parallel.gather import kind_of


@dataclass(frozen=True, kw_only=True)
class PlainBlock:
    """The parts of a pre-norm block that has nothing but layer norms, linear layers and GELU."""

    num_heads: int
    backend: Backend
    norm1: nn.LayerNorm
    qkv: nn.Linear
    proj: nn.Linear
    norm2: nn.LayerNorm
    fc1: nn.Linear
    fc2: nn.Linear

    @classmethod
    def of(cls, block: nn.Module) -> "PlainBlock | None":
        """The block's parts; None if it holds anything more, or if hooks wait for its layers to be called."""
        if kind_of(block) is not Block:
            return None
        assert isinstance(block, Block)
        if type(block.attn) is not Attention or type(block.mlp) is not Mlp:
            return None
        attn, mlp = block.attn, block.mlp
        linears = [attn.qkv, attn.proj, mlp.fc1, mlp.fc2]
        norms = [block.norm1, block.norm2]
        unused = [attn.q_norm, attn.k_norm, attn.norm, mlp.norm, block.ls1, block.ls2]
        unused += [block.drop_path1, block.drop_path2]
        plain = (
            getattr(attn, "gate", None) is None
            and type(mlp.act) in (nn.GELU, GELU)
            and getattr(mlp.act, "approximate", "none") == "none"
            and type(attn.qkv) in (nn.Linear, KeylessLinear)
            and all(type(layer) is nn.Linear for layer in linears[1:])
            and all(layer.bias is not None for layer in linears)
            and all(isinstance(norm, nn.LayerNorm) and norm.bias is not None for norm in norms)
            and all(type(layer) is nn.Identity for layer in unused)
            and all(drop.p == 0 for drop in (attn.attn_drop, attn.proj_drop, mlp.drop1, mlp.drop2))
        )
        if not plain or any(chain.from_iterable(map(hooks_on, block.modules()))):
            return None
        qkv, proj, fc1, fc2 = cast(list[nn.Linear], linears)
        norm1, norm2 = cast(list[nn.LayerNorm], norms)
        return cls(
            num_heads=attn.num_heads,
            backend=backend_of(attn),
            norm1=norm1,
            qkv=qkv,
            proj=proj,
            norm2=norm2,
            fc1=fc1,
            fc2=fc2,
        )

    def project(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n e"]:
        """Queries, keys and values, side by side."""
        bias = self.qkv.used_bias if isinstance(self.qkv, KeylessLinear) else self.qkv.bias
        return norm_linear(x, self.norm1, self.qkv, bias)

    def finish(
        self,
        x: Float[Tensor, "b n d"],
        projected: Float[Tensor, "b n e"],
        read: slice,
        packing: Packing | None = None,
    ) -> Float[Tensor, "b q d"]:
        """The tokens `read` that leave the block; the others only serve them as keys and values."""
        # Heads stay behind tokens in memory, so that the gradients are put side by side in one copy at most.
        qkv = projected.unflatten(2, (3, self.num_heads, -1))
        mixed = mix(qkv, read=read, backend=self.backend, packing=packing)
        x = add_linear(mixed, self.proj, x[:, read])
        return add_mlp(x, self.norm2, self.fc1, self.fc2)
