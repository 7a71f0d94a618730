"""Which implementation of attention runs where."""

import logging
import os
from functools import cache
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

Backend = Literal["auto", "triton", "sdpa", "reference"]
LONG = 512
HEAD_DIMS = (16, 128)
_LOG = logging.getLogger(__name__)


def choose_backend(
    backend: Backend,
    *,
    device: torch.device,
    dtype: torch.dtype,
    head_dim: int,
    longest: int,
    plain: bool,
    lse: bool = False,
) -> Backend:
    """What `backend` stands for: "auto" becomes one of the others, which remain as they are.

    The kernels win in half precision, except on plain sequences (equally long, no mask, no bias) of 512 keys
    and more: those go to torch, whose own choice on Hopper is cuDNN.
    """
    if backend != "auto":
        return backend
    # Compilers look through a cache and warn that they do.
    choose = _automatic if torch.compiler.is_compiling() else _known
    return choose(device, dtype, head_dim, longest, plain, lse)


def _automatic(
    device: torch.device, dtype: torch.dtype, head_dim: int, longest: int, plain: bool, lse: bool
) -> Backend:
    low, high = HEAD_DIMS
    fits = low <= head_dim <= high and head_dim % 8 == 0 and dtype in (torch.float16, torch.bfloat16)
    if fits and device.type == "cuda" and not (plain and longest >= LONG) and _has_triton():
        chosen: Backend = "triton"
    else:
        chosen = "reference" if lse else "sdpa"
    if not torch.compiler.is_compiling():
        _log_once(chosen, device, dtype, head_dim, max(64, 1 << (longest - 1).bit_length()), plain)
    return chosen


_known = cache(_automatic)


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


@cache
def _log_once(
    chosen: Backend, device: torch.device, dtype: torch.dtype, head_dim: int, bucket: int, plain: bool
) -> None:
    kind = "plain" if plain else "masked or biased"
    _LOG.info(
        "attention on %s, %s, heads of %d, up to %d keys, %s: %s",
        device.type,
        dtype,
        head_dim,
        bucket,
        kind,
        chosen,
    )


def runs_triton(device: torch.device) -> bool:
    """Whether Triton's kernels can run there: on a GPU, or anywhere under its interpreter."""
    return device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"


def compute_dtype(tokens: Tensor) -> torch.dtype:
    """The type attention computes in: the tokens', or what autocast asks for. Bias tables stay float32."""
    kind = tokens.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tokens.dtype
