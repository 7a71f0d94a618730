"""Clusters of other targets' values, learnt with the networks."""

import re
from collections.abc import Callable, Mapping, Sequence
from inspect import signature

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from maskpre.checkpoints.sources import PlannedWeights, open_source, put_in
from maskpre.encoders.base import EncoderSpec
from maskpre.errors import UserError
from maskpre.losses.base import Loss
from maskpre.ops.mlp import gelu_mlp
from maskpre.targets.base import Target
from maskpre.types import Grid, Located, Step


class ClusterTarget(Target):
    """Scores of another target's `values`, and of the predictions, with learnt prototypes (SIGMA).

    The values, projected by an MLP of `hidden_dims` to `dim` values per cell, and the predictions, as wide,
    are compared with the same `num_prototypes` prototypes by their cosine. Without `dim` the values are taken
    as they are, as SIGMA does with those of frozen networks. With `projection_weights`, a file of SIGMA or a
    checkpoint of this package, the projection is another run's and learns no more. `loss` then lets either
    side predict the other's cluster (Salehi et al., ECCV 2024, arXiv 2407.15447, section 3).

    Gradients reach prototypes and projection through the scores of the values only, networks through those
    of the predictions only. Prototypes have length 1: they are scaled after every optimiser step, and
    gradients are those at unit length.

    Raises ValueError without prototypes, for `hidden_dims` without `dim`, for values that count unequally,
    for a file without such a projection, or as `values` does.
    """

    by_cell = True

    def __init__(
        self,
        *,
        grid: Grid,
        passes: Mapping[str, EncoderSpec],
        values: Callable[..., Target],
        loss: Loss,
        num_prototypes: int,
        dim: int | None,
        hidden_dims: Sequence[int],
        projection_weights: str | PlannedWeights | None = None,
    ) -> None:
        context = {"grid": grid, "passes": passes}
        asked = signature(values).parameters
        inner = values(**{name: value for name, value in context.items() if name in asked})
        if num_prototypes < 2:
            raise ValueError(f"num_prototypes must be at least 2, got {num_prototypes}")
        if dim is None and hidden_dims:
            raise ValueError(
                f"hidden_dims={list(hidden_dims)} need dim, the width they end in; set it, or []"
            )
        if inner.value_weights is not None:
            raise ValueError(
                "the values count unequally (layers=linear_decay); clusters have no such weights"
            )
        super().__init__(grid=inner.grid, dim=dim or inner.dim, reads=inner.reads)
        self.taps, self.loss_of, self.gives_class = inner.taps, inner.loss_of, inner.gives_class
        self.values, self.loss = inner, loss
        widths = [] if dim is None else [inner.dim, *hidden_dims, dim]
        self.projection = gelu_mlp(widths) if widths else nn.Identity()
        if projection_weights is not None:
            _fill(self.projection, projection_weights)
        self.prototypes = nn.Parameter(normalize(torch.randn(num_prototypes, self.dim), dim=1))

    def forward(self, step: Step) -> Located:
        """The values; they are projected where they are compared."""
        with torch.no_grad():
            found: Located = self.values(step)
        return found

    def at(self, step: Step, like: Located) -> Located:
        """The values at the cells of `like`, if `values` can be had there alone."""
        with torch.no_grad():
            return self.values.at(step, like)

    def compare(
        self, predicted: Float[Tensor, "b n d"], wanted: Float[Tensor, "b n j"]
    ) -> tuple[Float[Tensor, "b n k"], Float[Tensor, "b n k"]]:
        """Cosines of both sides with all prototypes."""
        fixed = normalize(self.prototypes.detach(), dim=1)
        # Worth `fixed`, with the gradient of unit prototypes.
        learnt = fixed + (self.prototypes - self.prototypes.detach())
        projected = self.projection(wanted)
        return linear(normalize(predicted, dim=-1), fixed), linear(normalize(projected, dim=-1), learnt)

    @torch.no_grad()
    def after_step(self) -> None:
        """Give prototypes length 1 again."""
        self.prototypes.copy_(normalize(self.prototypes, dim=1))


def _fill(projection: nn.Module, weights: str | PlannedWeights) -> None:
    """Take a projection over, and freeze it."""
    # A configuration is checked on the meta device, where a file's tensors would lose their values.
    with torch.device("cpu"):
        state = open_source(weights).model()
    found = {
        match[1]: value
        for name, value in state.items()
        if (match := re.match(r"targets\.\w+\.projection\.(.*)", name))
    }
    own = projection.state_dict()
    if not own or {n: v.shape for n, v in found.items()} != {n: v.shape for n, v in own.items()}:
        raise UserError(
            f"{weights} has {_widths(found)} where target.dim and target.hidden_dims make {_widths(own)}"
        )
    put_in(projection, found)
    projection.requires_grad_(False)


def _widths(state: Mapping[str, Tensor]) -> str:
    """A projection in words, from its weights."""
    layers = [tuple(value.shape)[::-1] for name, value in state.items() if name.endswith("weight")]
    return (
        "a projection of layers " + ", ".join(f"{a} to {b}" for a, b in layers) if layers else "no projection"
    )
