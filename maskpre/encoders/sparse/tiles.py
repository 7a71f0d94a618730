"""Sparse convolution that keeps and computes visible positions only."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor, nn

from maskpre.encoders.sparse.execution import Execution, Feature, Pointwise
from maskpre.ops.batch_norm import Statistics, normalise_rows
from maskpre.ops.tiles.conv import tile_conv2d, tile_linear
from maskpre.ops.tiles.pool import tile_pool2d
from maskpre.ops.tiles.units import VisibleUnits
from maskpre.types import MaskPlan


class VisibleTiles(Execution):
    """Runs each layer on tall maps: the visible tiles of a sample, one below the other.

    Only convolutions and pools know of it; other layers see maps that happen to hide nothing.
    """

    def __init__(self, plan: MaskPlan, *, statistics: Statistics) -> None:
        rows, columns = plan.grid.shape
        self.units = VisibleUnits(keep=plan.keep, shape=(rows, columns))
        self.statistics = statistics

    def enter(self, x: Float[Tensor, "b c h w"]) -> Feature:
        """See `Execution.enter`."""
        return Feature(self.units.pack(x))

    def leave(self, feature: Feature) -> Float[Tensor, "b c h w"]:
        """See `Execution.leave`."""
        return self.units.unpack(feature.data)

    def window(self, layer: nn.Module, feature: Feature) -> Feature:
        """See `Execution.window`."""
        units, x = self.units, feature.data
        # Subclasses pad as the size of the map demands, and want to see the map.
        if isinstance(layer, nn.Conv2d) and type(layer) is nn.Conv2d:
            return Feature(tile_conv2d(x, layer, units))
        if isinstance(layer, nn.MaxPool2d | nn.AvgPool2d) and type(layer) in (nn.MaxPool2d, nn.AvgPool2d):
            return Feature(tile_pool2d(x, layer, units))
        return Feature(units.pack(layer(units.unpack(x))))

    def point(self, layer: Pointwise, feature: Feature, *, keeps_zero: bool) -> Feature:
        """See `Execution.point`."""
        data = feature.data
        return replace(
            feature, data=tile_linear(data, layer) if isinstance(layer, nn.Linear) else layer(data)
        )

    def batch(self, layer: nn.Module, feature: Feature) -> Feature:
        """See `Execution.batch`."""
        return Feature(normalise_rows(layer, feature.data, statistics=self.statistics, again=self.again))

    def sample(self, layer: nn.Module, feature: Feature) -> Feature:
        """See `Execution.sample`."""
        return replace(feature, data=layer(feature.data))

    def join(self, function: Callable[[Sequence[Tensor]], Tensor], features: Sequence[Feature]) -> Feature:
        """See `Execution.join`."""
        return replace(features[0], data=function([feature.data for feature in features]))

    def weigh(self, feature: Feature, factors: Float[Tensor, "b"]) -> Feature:
        """See `Execution.weigh`."""
        return replace(feature, data=feature.data * factors.to(feature.data.dtype)[:, None, None, None])

    def turn(self, feature: Feature, order: tuple[int, ...]) -> Feature:
        """See `Execution.turn`."""
        return replace(feature, data=feature.data.permute(order), channels_last=not feature.channels_last)
