"""The bias table's gradient in a fixed order: sums by places of query and key, then by rows of the table.

Sums of score gradients over samples are small however large the batch is, and the only thing of that size:
a tensor of samples x heads x queries x keys exists at no time.
"""

from dataclasses import dataclass
from typing import Any

import torch
import triton
from jaxtyping import Float, Int
from torch import Tensor

from maskpre.ops.attention_triton.fold import fold_table
from maskpre.ops.attention_triton.samples import Samples

# Fixed numbers, so that results do not depend on the device's size: about 8 programs per multiprocessor.
PROGRAMS = 1024
SCRATCH_BYTES = 64 * 2**20


@dataclass(frozen=True)
class ScoreSums:
    """Gradient of the scores, summed by each part of the samples.

    Attributes:
        samples_each: Samples a program works through, one after the other.
        parts: Programs per head and tile.
        sums: By places of query and key; None without a table.
        code_q, code_k: The code at each place.
    """

    samples_each: int
    parts: int
    sums: Float[Tensor, "parts h pq pk"] | None = None
    code_q: Int[Tensor, "pq"] | None = None
    code_k: Int[Tensor, "pk"] | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """What the kernels take, by name."""
        places_q, places_k = (0, 0) if self.sums is None else self.sums.shape[2:]
        return {
            "partial": self.sums,
            "samples_each": self.samples_each,
            "places_q": places_q,
            "places_k": places_k,
        }


def allocate_sums(samples: Samples, q: Tensor, k: Tensor, *, tiles: int, zeroed: bool) -> ScoreSums:
    """Sums for kernels of `tiles` programs per head and part, `zeroed` if they add to what is there."""
    if samples.table is None or samples.code_q is None or samples.code_k is None:
        return ScoreSums(samples_each=1, parts=samples.num_samples)
    if samples.same_codes(samples.code_q, len(q)) and samples.same_codes(samples.code_k, len(k)):
        code_q, code_k = samples.code_q[: samples.max_q], samples.code_k[: samples.max_k]
    else:
        code_q = code_k = torch.arange(-1, samples.code_offset + 1, dtype=torch.int32, device=q.device)
        zeroed = True
    num_heads = q.shape[1]
    bytes_each = num_heads * len(code_q) * len(code_k) * samples.table.element_size()
    parts = min(triton.cdiv(PROGRAMS, num_heads * tiles), max(1, SCRATCH_BYTES // bytes_each))
    samples_each = triton.cdiv(samples.num_samples, parts)
    parts = triton.cdiv(samples.num_samples, samples_each)
    make = torch.zeros if zeroed else torch.empty
    shape = (parts, num_heads, len(code_q), len(code_k))
    sums = make(shape, dtype=samples.table.dtype, device=q.device)
    return ScoreSums(samples_each=samples_each, parts=parts, sums=sums, code_q=code_q, code_k=code_k)


def fold_sums(sums: ScoreSums, samples: Samples) -> Float[Tensor, "h r"] | None:
    """Gradient of the bias table."""
    if samples.table is None or sums.sums is None or sums.code_q is None or sums.code_k is None:
        return None
    d_scores = sums.sums.sum(0)
    num_heads, places_q, places_k = d_scores.shape
    sorted_k, order_k = torch.sort(sums.code_k, stable=True)
    d_table = torch.empty_like(samples.table)
    block_rows = 64
    grid = (num_heads * triton.cdiv(samples.num_rows, block_rows),)
    with torch.cuda.device_of(d_scores):
        fold_table[grid](
            d_scores, sums.code_q, sums.code_k, sorted_k, order_k, d_table,
            num_heads, places_q, places_k, samples.code_offset, samples.num_rows,
            STEPS=places_k.bit_length(), BLOCK_Q=64, BLOCK_K=64, BLOCK_ROWS=block_rows,
        )  # fmt: skip
    return d_table
