"""Sparse convolution by computing every position and emptying the hidden ones (SparK, arXiv 2301.03580)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from jaxtyping import Bool, Float
from torch import Tensor, nn

from maskpre.encoders.sparse.execution import Execution, Feature, Pointwise
from maskpre.encoders.sparse.layers import is_pointwise, keeps_zero
from maskpre.ops.batch_norm import Statistics, normalise_rows
from maskpre.ops.cells import gather_cells, scatter_cells
from maskpre.types import Grid, MaskPlan


@dataclass(frozen=True)
class MaskedFeature(Feature):
    """A plain map; `clean` if its hidden positions are known to be zero."""

    clean: bool = False


class MaskMultiplication(Execution):
    """Runs each layer on whole maps. Hidden positions are set to zero where the next layer would read them.

    Batch norms see visible positions only. Without a plan every position is visible.
    """

    def __init__(self, plan: MaskPlan | None, *, statistics: Statistics) -> None:
        self.plan, self.statistics = plan, statistics
        self._hidden: dict[tuple[int, ...], Tensor] = {}

    def hidden(self, shape: tuple[int, ...]) -> Bool[Tensor, "b 1 h w"]:
        """The mask at the resolution of a map; ValueError if its positions don't divide the picture."""
        if shape not in self._hidden:
            assert self.plan is not None
            size = self.plan.grid.input_size
            if any(pixels % positions for pixels, positions in zip(size, shape, strict=True)):
                raise ValueError(
                    f"a picture of {size} pixels gives a feature map of {shape}, which does not divide it: "
                    "the network's padding fits no mask"
                )
            stride = tuple(pixels // positions for pixels, positions in zip(size, shape, strict=True))
            self._hidden[shape] = self.plan.at(Grid(shape, stride)).unflatten(1, (1, *shape))
        return self._hidden[shape]

    def _clean(self, feature: MaskedFeature) -> MaskedFeature:
        if feature.clean or self.plan is None:
            return feature
        data = feature.data
        if feature.channels_last:
            hidden = self.hidden(tuple(data.shape[1:3])).movedim(1, -1)
        else:
            hidden = self.hidden(tuple(data.shape[2:]))
        return replace(feature, data=data.masked_fill(hidden, 0.0), clean=True)

    def enter(self, x: Float[Tensor, "b c h w"]) -> MaskedFeature:
        """See `Execution.enter`."""
        return MaskedFeature(x)

    def leave(self, feature: MaskedFeature) -> Float[Tensor, "b c h w"]:
        """See `Execution.leave`."""
        return self._clean(feature).data

    def window(self, layer: nn.Module, feature: MaskedFeature) -> MaskedFeature:
        """See `Execution.window`."""
        if is_pointwise(layer):
            return MaskedFeature(layer(feature.data), clean=feature.clean and keeps_zero(layer))
        return MaskedFeature(layer(self._clean(feature).data))

    def point(self, layer: Pointwise, feature: MaskedFeature, *, keeps_zero: bool) -> MaskedFeature:
        """See `Execution.point`."""
        return replace(feature, data=layer(feature.data), clean=feature.clean and keeps_zero)

    def batch(self, layer: nn.Module, feature: MaskedFeature) -> MaskedFeature:
        """See `Execution.batch`."""
        if self.plan is None:
            return MaskedFeature(self._normalise(layer, feature.data))
        keep, shape = self.plan.keep, self.plan.grid.shape
        rows = gather_cells(feature.data, keep, shape)
        return MaskedFeature(scatter_cells(self._normalise(layer, rows), keep, shape), clean=True)

    def _normalise(self, layer: nn.Module, rows: Tensor) -> Tensor:
        return normalise_rows(layer, rows, statistics=self.statistics, again=self.again)

    def sample(self, layer: nn.Module, feature: MaskedFeature) -> MaskedFeature:
        """See `Execution.sample`. The layer sees one picture per sample that holds its visible cells only."""
        if self.plan is None:
            return replace(feature, data=layer(feature.data))
        keep, shape, last = self.plan.keep, self.plan.grid.shape, feature.channels_last
        data = feature.data.movedim(-1, 1) if last else feature.data
        cells = gather_cells(data, keep, shape).unflatten(0, keep.shape)
        picture = cells.transpose(1, 2).flatten(2, 3)
        normed = layer(picture.movedim(1, -1)).movedim(-1, 1) if last else layer(picture)
        cells = normed.unflatten(2, cells.shape[1:4:2]).transpose(1, 2).flatten(0, 1)
        data = scatter_cells(cells, keep, shape)
        return replace(feature, data=data.movedim(1, -1) if last else data, clean=True)

    def join(
        self, function: Callable[[Sequence[Tensor]], Tensor], features: Sequence[MaskedFeature]
    ) -> MaskedFeature:
        """See `Execution.join`."""
        clean = all(feature.clean for feature in features)
        return replace(features[0], data=function([feature.data for feature in features]), clean=clean)

    def weigh(self, feature: MaskedFeature, factors: Float[Tensor, "b"]) -> MaskedFeature:
        """See `Execution.weigh`."""
        return replace(feature, data=feature.data * factors.to(feature.data.dtype)[:, None, None, None])

    def squeeze(self, feature: MaskedFeature) -> Float[Tensor, "b c 1 1"]:
        """The mean over the picture; only where all of it is visible."""
        if self.plan is not None:
            return super().squeeze(feature)
        return feature.data.mean(dim=(2, 3), keepdim=True)

    def turn(self, feature: MaskedFeature, order: tuple[int, ...]) -> MaskedFeature:
        """See `Execution.turn`."""
        return replace(feature, data=feature.data.permute(order), channels_last=not feature.channels_last)
