"""Launching the attention kernels: what is allocated, which kernel runs, on what grid.

Nothing here waits for the device. Samples lie one after another: `cu_q` and `cu_k`, int32 (samples + 1,),
give each sample's first query and key and end at the number of all tokens; without them every sample has
exactly `max_q` (`max_k`) tokens. A query sees a key if their groups are equal and not negative; without
groups it sees all keys of its sample. Codes choose the row of `table` that is added to a score:
code_q - code_k + code_offset, or one of the last three rows where a code is negative, as a class token's.
They are either one per token or, in a tensor of another length, one per place in a sample, the same in all
samples. Arguments are not checked.
"""

from typing import Any

import torch
import triton
from jaxtyping import Float, Int
from torch import Tensor

from maskpre.ops.attention_triton.backward_loop import backward_keys, backward_queries
from maskpre.ops.attention_triton.backward_tile import backward_tile
from maskpre.ops.attention_triton.choices import Kernel, Tile, choose, longest_tile, split_head
from maskpre.ops.attention_triton.forward import forward_loop, forward_tile
from maskpre.ops.attention_triton.samples import Samples
from maskpre.ops.attention_triton.table_gradient import allocate_sums, fold_sums


def forward(
    q: Float[Tensor, "tq h d"],
    k: Float[Tensor, "tk h d"],
    v: Float[Tensor, "tk h d"],
    *,
    cu_q: Int[Tensor, "..."] | None,
    cu_k: Int[Tensor, "..."] | None,
    num_samples: int,
    max_q: int,
    max_k: int,
    group_q: Int[Tensor, "tq"] | None,
    group_k: Int[Tensor, "tk"] | None,
    table: Float[Tensor, "h r"] | None,
    code_q: Int[Tensor, "..."] | None,
    code_k: Int[Tensor, "..."] | None,
    code_offset: int,
    scale: float,
) -> tuple[Float[Tensor, "tq h d"], Float[Tensor, "h tq"]]:
    """Attention output in q's type, contiguous, and the logarithm of each softmax's denominator.

    The logarithms are float32, or float64 for float64 inputs. Queries that see no key get 0 and -inf.
    """
    samples = Samples(
        cu_q, cu_k, num_samples, max_q, max_k, group_q, group_k, table, code_q, code_k, code_offset, scale
    )
    q, k, v = (_within_reach(x, max(max_q, max_k)) for x in (q, k, v))
    num_queries, num_heads, _ = q.shape
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    lse = torch.empty(num_heads, num_queries, dtype=_wide(q), device=q.device)
    if not max_k:
        return out.zero_(), lse.fill_(float("-inf"))
    outputs = {"out": out, "lse": lse}
    if _fits_tile(q, samples):
        _run(
            forward_tile,
            num_samples,
            outputs | _arguments(q, k, v, samples, _tile("forward_tile", q, samples)),
        )
    else:
        tile = _tile("forward_loop", q, samples)
        tiles = num_samples * triton.cdiv(max_q, tile.block_q)
        _run(forward_loop, tiles, outputs | _arguments(q, k, v, samples, tile))
    return out, lse


def backward(
    grad_out: Float[Tensor, "tq h d"],
    q: Float[Tensor, "tq h d"],
    k: Float[Tensor, "tk h d"],
    v: Float[Tensor, "tk h d"],
    out: Float[Tensor, "tq h d"],
    lse: Float[Tensor, "h tq"],
    *,
    cu_q: Int[Tensor, "..."] | None,
    cu_k: Int[Tensor, "..."] | None,
    num_samples: int,
    max_q: int,
    max_k: int,
    group_q: Int[Tensor, "tq"] | None,
    group_k: Int[Tensor, "tk"] | None,
    table: Float[Tensor, "h r"] | None,
    code_q: Int[Tensor, "..."] | None,
    code_k: Int[Tensor, "..."] | None,
    code_offset: int,
    scale: float,
    grads: tuple[Tensor, Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor, Float[Tensor, "h r"] | None]:
    """Gradients of q, k, v and, where there is one, the table; `out` and `lse` are what `forward` gave.

    `grads` are tensors to write the first three into, such as the parts of one (tokens, 3, H, D). For the
    table's gradient, codes that differ between samples must lie between 0 and `code_offset` and occur once
    in a sample, with at most one class token in each.
    """
    samples = Samples(
        cu_q, cu_k, num_samples, max_q, max_k, group_q, group_k, table, code_q, code_k, code_offset, scale
    )
    q, k, v, grad_out = (_within_reach(x, max(max_q, max_k)) for x in (q, k, v, grad_out))
    dq, dk, dv = grads or (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    if not (num_samples and max_q and max_k):
        return dq.zero_(), dk.zero_(), dv.zero_(), None if table is None else torch.zeros_like(table)
    inputs = {"lse": lse, "grad_out": grad_out} | _strides(grad=grad_out)
    for_queries = {"out": out.contiguous(), "dq": dq, "num_samples": num_samples} | _strides(dq=dq)
    for_keys = {"dk": dk, "dv": dv} | _strides(dk=dk, dv=dv)
    if _fits_tile(q, samples):
        sums = allocate_sums(samples, q, k, tiles=1, zeroed=False)
        tile = _tile("backward_tile", q, samples)
        arguments = inputs | for_queries | for_keys | sums.arguments | _arguments(q, k, v, samples, tile)
        _run(backward_tile, sums.parts, arguments)
    else:
        inputs["delta"] = torch.empty_like(lse)
        tile = _tile("backward_queries", q, samples)
        tiles = triton.cdiv(max_q, tile.block_q)
        sums = allocate_sums(samples, q, k, tiles=tiles, zeroed=True)
        arguments = inputs | for_queries | sums.arguments | _arguments(q, k, v, samples, tile)
        _run(backward_queries, sums.parts * tiles, arguments)
        tile = _tile("backward_keys", q, samples)
        arguments = inputs | for_keys | _arguments(q, k, v, samples, tile)
        _run(backward_keys, num_samples * triton.cdiv(max_k, tile.block_k), arguments)
    return dq, dk, dv, fold_sums(sums, samples)


def _within_reach(x: Tensor, longest: int) -> Tensor:
    """The tensor, or a copy that kernels can read: dense heads, 32-bit offsets within a sample."""
    return x if x.stride(-1) == 1 and longest * x.stride(0) < 2**31 else x.contiguous()


def _fits_tile(q: Tensor, samples: Samples) -> bool:
    return max(samples.max_q, samples.max_k) <= longest_tile(8 * q.element_size())


def _wide(q: Tensor) -> torch.dtype:
    return torch.float64 if q.dtype is torch.float64 else torch.float32


def _tile(kernel: Kernel, q: Tensor, samples: Samples) -> Tile:
    return choose(
        kernel,
        element_bits=8 * q.element_size(),
        width=sum(split_head(q.shape[-1])),
        max_q=samples.max_q,
        max_k=samples.max_k,
        has_table=samples.table is not None,
    )


def _arguments(q: Tensor, k: Tensor, v: Tensor, samples: Samples, tile: Tile) -> dict[str, Any]:
    """What every kernel takes, by name."""
    main, tail = split_head(q.shape[-1])
    return {
        "q": q,
        "k": k,
        "v": v,
        "cu_q": samples.cu_q,
        "cu_k": samples.cu_k,
        "group_q": samples.group_q,
        "group_k": samples.group_k,
        "table": samples.table,
        "code_q": samples.code_q,
        "code_k": samples.code_k,
        "num_heads": q.shape[1],
        "max_q": samples.max_q,
        "max_k": samples.max_k,
        "total_q": q.shape[0],
        "code_offset": samples.code_offset,
        "num_rows": samples.num_rows,
        "SHARED_Q": samples.same_codes(samples.code_q, len(q)),
        "SHARED_K": samples.same_codes(samples.code_k, len(k)),
        "SCALE": samples.scale,
        "D": q.shape[-1],
        "MAIN": main,
        "TAIL": tail,
        "BLOCK_Q": tile.block_q,
        "BLOCK_K": tile.block_k,
        # A CPU tensor is only ever met by the interpreter.
        "UP": q.device.type == "cpu" and q.dtype is torch.bfloat16,
        "num_warps": tile.num_warps,
        "num_stages": tile.num_stages,
        "enable_fp_fusion": True,
    } | _strides(q=q, k=k, v=v)


def _strides(**tensors: Tensor) -> dict[str, int]:
    strides = {f"{name}_stride": tensor.stride(0) for name, tensor in tensors.items()}
    return strides | {f"{name}_head": tensor.stride(1) for name, tensor in tensors.items()}


def _run(kernel: Any, programs_of_head: int, arguments: dict[str, Any]) -> None:
    programs = programs_of_head * arguments["num_heads"]
    if programs:
        with torch.cuda.device_of(arguments["q"]):
            kernel[(programs,)](**arguments)
