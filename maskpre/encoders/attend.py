"""The attention of timm's modules through `masked_attention`, and which implementation each of them uses."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int, Int32
from timm.layers.attention import Attention
from timm.models.beit import Attention as BeitAttention
from timm.models.swin_transformer import WindowAttention
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from maskpre.encoders.qkv import CosineAttention
from maskpre.ops.attention_choice import Backend, choose_backend, compute_dtype
from maskpre.ops.masked_attention import masked_attention, masked_attention_qkv

ALL = slice(None)
KINDS = (Attention, BeitAttention, WindowAttention)


@dataclass(frozen=True, kw_only=True)
class Packing:
    """Samples of differing length one after another: (1, t, d) instead of (b, n, d).

    Sample i owns the tokens from cu[i] to cu[i + 1], at most `longest`; `sample` is every token's.
    """

    cu: Int32[Tensor, "s"]
    longest: int
    sample: Int[Tensor, "t"]


def set_attention(module: nn.Module, backend: Backend) -> None:
    """Make every attention inside the module use `backend`; see `masked_attention`."""
    for part in module.modules():
        if isinstance(part, KINDS):
            part.attention_backend = backend  # type: ignore[assignment]


def backend_of(attn: nn.Module) -> Backend:
    """What `set_attention` chose, or "auto"."""
    return getattr(attn, "attention_backend", "auto")


def backend_for_bias(attn: Any, x: Float[Tensor, "b n d"]) -> Backend:
    """What will run where a bias is added to the scores."""
    return choose_backend(
        backend_of(attn),
        device=x.device,
        dtype=compute_dtype(x),
        head_dim=attn.qkv.weight.shape[0] // (3 * attn.num_heads),
        longest=x.shape[1],
        plain=False,
    )


def mix(
    qkv: Float[Tensor, "b n 3 h e"], *, read: slice, backend: Backend, packing: Packing | None
) -> Float[Tensor, "b q d"]:
    """What the tokens `read` gather from all tokens of their sample, heads side by side."""
    if read != ALL:
        q, k, v = qkv.unbind(2)
        return _mix_apart(q[:, read], k, v, backend=backend, packing=packing)
    if packing is None:
        return masked_attention_qkv(qkv, backend=backend).flatten(2)
    return masked_attention_qkv(qkv[0], cu=packing.cu, max_n=packing.longest, backend=backend)[None].flatten(
        2
    )


def _mix_apart(
    q: Tensor, k: Tensor, v: Tensor, *, backend: Backend, packing: Packing | None, scale: float | None = None
) -> Tensor:
    if packing is None:
        return masked_attention(q, k, v, scale=scale, backend=backend).flatten(2)
    cu, longest = packing.cu, packing.longest
    mixed = masked_attention(
        q[0], k[0], v[0], cu_q=cu, cu_k=cu, max_q=longest, max_k=longest, scale=scale, backend=backend
    )
    return mixed[None].flatten(2)


def hooks_on(module: nn.Module) -> tuple[bool, ...]:
    """Whether hooks of each kind wait for the call of the module, beside those that gather its weights."""
    hooks = (
        module._forward_pre_hooks,
        module._forward_hooks,
        module._backward_pre_hooks,
        module._backward_hooks,
    )
    gathering = (1, 1, 0, 0) if isinstance(module, FSDPModule) else (0, 0, 0, 0)
    return tuple(len(found) > own for found, own in zip(hooks, gathering, strict=True))


def attends_by_parts(attn: nn.Module) -> bool:
    """Whether `self_attention` knows all that the module does."""
    return (
        (type(attn) is Attention or type(attn) is CosineAttention)
        and getattr(attn, "gate", None) is None
        and attn.attn_drop.p == 0
        and not any(hooks_on(attn))
    )


def self_attention(
    attn: nn.Module, x: Float[Tensor, "b n d"], packing: Packing | None
) -> Float[Tensor, "b n d"]:
    """What timm's multi-head attention yields, of `packing`'s samples where it is given.

    Raises ValueError if samples are packed and the module does more than is known here.
    """
    if not attends_by_parts(attn):
        if packing is not None:
            raise ValueError(
                f"{type(attn).__name__} with gates, dropout or hooks can't attend in packed samples"
            )
        return attn(x)
    module: Any = attn
    qkv = module.qkv(x).unflatten(2, (3, module.num_heads, -1))
    backend = backend_of(attn)
    if isinstance(attn, CosineAttention):
        q, k, v = qkv.unbind(2)
        mixed = _mix_apart(*attn.compared(q, k), v, backend=backend, packing=packing, scale=1.0)
    elif type(module.q_norm) is nn.Identity and type(module.k_norm) is nn.Identity:
        mixed = mix(qkv, read=ALL, backend=backend, packing=packing)
    else:
        q, k, v = qkv.unbind(2)
        mixed = _mix_apart(module.q_norm(q), module.k_norm(k), v, backend=backend, packing=packing)
    return module.proj_drop(module.proj(module.norm(mixed)))
