"""Layer masking (Balasubramanian & Feizi 2023): masks that widen, and a border filled from what is seen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, max_pool2d, pad

from maskpre.encoders.sparse.execution import Execution, Feature, Pointwise
from maskpre.encoders.sparse.layers import Kind
from maskpre.encoders.sparse.sizes import paddings
from maskpre.ops.batch_norm import Statistics, normalise_rows

Border = Literal["neighbours", "zero", "share"]
BORDERS: tuple[Border, ...] = get_args(Border)
# Official names: these act on what is there without emptying the rest again.
UNMASKED: tuple[type[nn.Module], ...] = (nn.GELU, nn.Identity)


@dataclass(frozen=True)
class SeenFeature(Feature):
    """A plain map and which positions of it are seen: 1 or 0, (b, 1, h, w)."""

    seen: Tensor | None = None


def fill_border(
    x: Float[Tensor, "b c h w"], seen: Float[Tensor, "b 1 h w"], sweeps: int
) -> Float[Tensor, "b c h w"]:
    """Widen the seen area by `sweeps` positions, each the mean of its filled 3x3 neighbours.

    No gradient passes through what is filled in. Neighbours outside the picture don't count.
    """
    x = x * seen
    for _ in range(sweeps):
        around = 9 * avg_pool2d(x, 3, stride=1, padding=1)
        count = 9 * avg_pool2d(seen, 3, stride=1, padding=1)
        x = x + ((1 - seen) * around / (count + 1e-5)).detach()
        seen = (seen + count).clamp(0, 1)
    return x


class LayerMasking(Execution):
    """Shows a network a masked picture by widening the seen area with every window.

    A position is seen behind a window if any position under it was. `border` says what windows read where
    nothing is seen: "neighbours" fills as far as a kernel reaches (layer masking), "zero" leaves it empty,
    "share" divides a convolution's sum by the seen share under it (partial convolution). Batch norms are
    ordinary ones: in training, for which nothing is published, what isn't seen counts as zeros in their
    `statistics`.
    """

    knows: ClassVar[frozenset[Kind]] = frozenset(Kind)

    def __init__(
        self,
        seen: Float[Tensor, "b 1 h w"],
        *,
        border: Border = "neighbours",
        statistics: Statistics = "rank",
    ) -> None:
        self.seen, self.border, self.statistics = seen, border, statistics

    def enter(self, x: Float[Tensor, "b c h w"]) -> SeenFeature:
        """See `Execution.enter`; only the picture enters."""
        seen = self.seen.to(x.dtype)
        return SeenFeature(x * seen if self.border == "share" else x, seen=seen)

    def leave(self, feature: SeenFeature) -> Float[Tensor, "b c h w"]:
        """See `Execution.leave`."""
        return feature.data

    def window(self, layer: nn.Module, feature: SeenFeature) -> SeenFeature:
        """A convolution or pool; the seen area widens."""
        assert feature.seen is not None
        if isinstance(layer, nn.Conv2d):
            framed = pad(feature.seen, paddings(layer, feature.seen.shape[2:]))
            seen = max_pool2d(framed, layer.kernel_size, layer.stride, 0, layer.dilation)
            data = self._convolve(layer, feature.data, feature.seen, framed)
        else:
            data, reach = layer(feature.data), layer(feature.seen)
            seen = (reach > 0).to(data.dtype)
        return SeenFeature(data * seen, seen=seen)

    def _convolve(self, layer: nn.Conv2d, x: Tensor, seen: Tensor, framed: Tensor) -> Tensor:
        """The convolution; `framed` is `seen` with the layer's padding around it."""
        if self.border == "share":
            taps = seen.new_ones(1, 1, *layer.kernel_size) / prod(layer.kernel_size)
            share = conv2d(framed, taps, None, layer.stride, 0, layer.dilation) + 1e-8
            bias = 0.0 if layer.bias is None else layer.bias.view(1, -1, 1, 1)
            return (layer(x) - bias) / share + bias
        reach = layer.dilation[1] * (layer.kernel_size[1] - 1) + 1
        return layer(fill_border(x, seen, reach if self.border == "neighbours" else 0))

    def point(self, layer: Pointwise, feature: SeenFeature, *, keeps_zero: bool) -> SeenFeature:
        """See `Execution.point`; what isn't seen is emptied again."""
        if isinstance(layer, UNMASKED):
            return replace(feature, data=layer(feature.data))
        assert feature.seen is not None
        return replace(feature, data=layer(feature.data * feature.seen) * feature.seen)

    def batch(self, layer: nn.Module, feature: SeenFeature) -> SeenFeature:
        """An ordinary batch norm, and what isn't seen emptied again."""

        def norm(x: Tensor) -> Tensor:
            return normalise_rows(layer, x, statistics=self.statistics, again=self.again)

        return self.point(norm, feature, keeps_zero=False)

    def sample(self, layer: nn.Module, feature: SeenFeature) -> SeenFeature:
        """The layer as it is, and what isn't seen emptied again."""
        return self.point(layer, feature, keeps_zero=False)

    def join(
        self, function: Callable[[Sequence[Tensor]], Tensor], features: Sequence[SeenFeature]
    ) -> SeenFeature:
        """A sum is seen where all of its parts are, a concatenation where more than half of them are."""
        data = function([feature.data for feature in features])
        seen = torch.stack([feature.seen for feature in features if feature.seen is not None])
        is_sum = data.shape[1] == features[0].data.shape[1]
        kept = seen.amin(dim=0) if is_sum else (seen.mean(dim=0) > 0.5).to(data.dtype)
        return SeenFeature(data * kept if is_sum else data, seen=kept)

    def weigh(self, feature: SeenFeature, factors: Float[Tensor, "b"]) -> SeenFeature:
        """See `Execution.weigh`."""
        return replace(feature, data=feature.data * factors.to(feature.data.dtype)[:, None, None, None])

    def turn(self, feature: SeenFeature, order: tuple[int, ...]) -> SeenFeature:
        """See `Execution.turn`."""
        assert feature.seen is not None
        return SeenFeature(
            feature.data.permute(order), not feature.channels_last, seen=feature.seen.permute(order)
        )

    def squeeze(self, feature: SeenFeature) -> Float[Tensor, "b c 1 1"]:
        """The mean over what is seen."""
        assert feature.seen is not None
        total = (feature.data * feature.seen).mean(dim=(2, 3), keepdim=True)
        return total / (feature.seen.mean(dim=(2, 3), keepdim=True) + 1e-8)
