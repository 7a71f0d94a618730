"""Classifiers trained on frozen features."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maskpre.errors import UserError


def build_probe_head(
    dim: int, num_classes: int, *, generator: torch.Generator | None = None
) -> nn.Sequential:
    """MAE's linear probe (arXiv 2111.06377, A.1): BatchNorm without affine, eps 1e-6, then a linear layer.

    The weight is drawn from a normal of deviation 0.01, the bias is zero.
    """
    linear = nn.Linear(dim, num_classes)
    nn.init.trunc_normal_(linear.weight, std=0.01, generator=generator)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.BatchNorm1d(dim, affine=False, eps=1e-6), linear)


class AttentiveHead(nn.Module):
    """One learnt query attends to all tokens; a linear layer classifies what it gathered.

    Equal to cross-attention of a single query (as in V-JEPA's probe, arXiv 2404.08471) with key and value
    projections, but computed the cheap way round: the query is pulled back through the key projection, and
    values are projected after the weighted mean, so that no projection runs per token. Tokens are layer
    normalised without affine first.
    """

    def __init__(
        self, *, dim: int, num_classes: int, num_heads: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise UserError(f"num_heads ({num_heads}) must divide the feature width ({dim})")
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.query = nn.Parameter(torch.empty(num_heads, dim // num_heads))
        self.key = nn.Parameter(torch.empty(num_heads, dim // num_heads, dim))
        self.value = nn.Parameter(torch.empty(num_heads, dim // num_heads, dim))
        self.out_norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, num_classes)
        for weight in (self.query, self.key, self.value, self.out.weight):
            nn.init.trunc_normal_(weight, std=0.02, generator=generator)
        nn.init.zeros_(self.out.bias)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k"]:
        """Class scores."""
        tokens = self.norm(tokens)
        query = torch.einsum("hc,hcd->hd", self.query, self.key) * self.query.shape[1] ** -0.5
        attention = (query @ tokens.transpose(1, 2)).softmax(dim=2)
        gathered = torch.einsum("bhd,hcd->bhc", attention @ tokens, self.value)
        return self.out(self.out_norm(gathered.flatten(1)))
