"""What another network makes of the picture as a target."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import layer_norm
from torch.nn.functional import normalize as unit_length

from maskpre.encoders.base import EncoderSpec
from maskpre.reading import read_spec
from maskpre.targets.base import Layers, Target
from maskpre.targets.layers import choose_layers
from maskpre.types import OUTPUT, Grid, Located, Step, Taps

Normalize = Literal["none", "l2", "whiten", "bn", "tokens"]
EPS = 1e-6


def normalize_features(
    values: Float[Tensor, "b n d"], how: Normalize, *, prefix: int = 0
) -> Float[Tensor, "b n d"]:
    """Features of a whole sequence, `prefix` tokens of no cell included, in at least float32.

    "l2" gives tokens length 1, "whiten" mean 0 and variance 1 (a layer norm without weights), "bn" takes one
    mean and one unbiased variance out of all values of the batch that this device holds, "tokens" those of
    all cells of a sample out of each channel (SIGMA, Salehi et al. 2024).
    """
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    if how == "l2":
        return unit_length(values, dim=-1)
    if how == "whiten":
        return layer_norm(values, values.shape[-1:])
    if how == "bn":
        return (values - values.mean()) / (values.var() + EPS).sqrt()
    if how == "tokens":
        deviation, mean = torch.std_mean(values[:, prefix:], dim=1, keepdim=True)
        return (values - mean) / (deviation + EPS)
    return values


class FeatureTarget(Target):
    """Tokens of the pass `of`: its final ones, or hidden layers side by side.

    `layers` "output" is what leaves the network, final norm and projection included. Hidden layers are taken
    before any final norm: as a list of layers counted from 1, or by MaskAlign's names (Xue et al. 2023) for
    what of `num_layers` T layers the loss counts: "mean" all alike, "out" the last, "topN" the last N, "midN"
    the one that N come before, "linear_decay" layer k in proportion to k - 1. Each is normalised on its own,
    see `normalize_features`.

    Raises ValueError if no pass of that name runs, or its network has other cells than the student or gives
    no such layers.
    """

    def __init__(
        self,
        *,
        grid: Grid,
        passes: Mapping[str, EncoderSpec],
        of: str = "teacher",
        layers: str | Sequence[int] = "output",
        normalize: Normalize = "none",
    ) -> None:
        spec = read_spec(passes, of)
        if spec.out_grid.shape != grid.shape:
            raise ValueError(
                f"the pass {of!r} gives {spec.out_grid.shape} cells, the student has {grid.shape}; choose "
                "the teacher's img_size or patch_size so that they agree"
            )
        output = layers == "output"
        choice = None if output else choose_layers(layers, spec.num_layers)
        super().__init__(
            grid=grid,
            dim=spec.embed_dim if choice is None else len(choice.chosen) * spec.layer_dim,
            reads={},
        )
        self.of, self.normalize = of, normalize
        self.gives_class = spec.num_prefix_tokens > 0
        self.layers = None if choice is None else Layers(choice.chosen, spec.num_layers)
        self.taps = {of: OUTPUT if choice is None else Taps(hidden=frozenset(choice.chosen))}
        uneven = choice is not None and len(set(choice.weights)) > 1
        weights = (
            torch.tensor(choice.weights).repeat_interleave(spec.layer_dim) if choice and uneven else None
        )
        self.register_buffer("_weights", weights, persistent=False)

    @property
    def value_weights(self) -> Tensor | None:
        """How much each value counts, where layers count differently."""
        return self._weights

    _weights: Tensor | None

    def forward(self, step: Step) -> Located:
        """The features of the step's pass."""
        encoded = step.outputs[self.of]
        found = (
            [encoded] if self.layers is None else [encoded.at_layer(layer) for layer in self.layers.chosen]
        )
        parts = [self._normalized(one) for one in found]
        tokens = parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
        split = encoded.num_prefix_tokens
        return Located(tokens[:, split:], self.grid, encoded.ids, encoded.covers, tokens[:, :split])

    def _normalized(self, found: Located) -> Float[Tensor, "b n d"]:
        """The whole sequence, normalised."""
        whole = found.tokens if found.prefix is None else torch.cat([found.prefix, found.tokens], dim=1)
        return normalize_features(whole, self.normalize, prefix=whole.shape[1] - found.tokens.shape[1])
