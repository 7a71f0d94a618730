"""What the attention kernels are told about a batch."""

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor


class Samples(NamedTuple):
    """Everything about a batch but its tokens; `launch` tells what each field means."""

    cu_q: Int[Tensor, "..."] | None
    cu_k: Int[Tensor, "..."] | None
    num_samples: int
    max_q: int
    max_k: int
    group_q: Int[Tensor, "tq"] | None
    group_k: Int[Tensor, "tk"] | None
    table: Float[Tensor, "h r"] | None
    code_q: Int[Tensor, "..."] | None
    code_k: Int[Tensor, "..."] | None
    code_offset: int
    scale: float

    @property
    def num_rows(self) -> int:
        """Rows of the bias table."""
        return 0 if self.table is None else self.table.shape[1]

    def same_codes(self, codes: Tensor | None, num_tokens: int) -> bool:
        """Whether the codes are one per place in a sample, not one per token."""
        return codes is not None and (self.num_samples == 1 or len(codes) != num_tokens)
