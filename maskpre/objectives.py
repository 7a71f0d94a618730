"""A prediction held against a target on a region."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from maskpre.losses.base import Loss, LossTerm
from maskpre.targets.base import Target
from maskpre.types import (
    Grid,
    Located,
    MaskPlan,
    Step,
    align,
    gather_tokens,
    refine,
    split_cells,
    split_region,
)


def region_weight(
    plan: MaskPlan, region: str, prediction: Located, *, by_cell: bool = False
) -> Float[Tensor, "b n #k"] | None:
    """How much each predicted token, or each of its values, belongs to a region; None if all do fully.

    Where the plan's units are finer than the predicted cells, the weight is per pixel of the cell, in the
    order (row, column, channel), or `by_cell` their mean. In float32 at least, so that it can be counted.
    Raises ValueError if the values can't be pixels then.
    """
    counted, dtype = prediction.counted, _precise(prediction.tokens)
    counted = None if counted is None else counted[..., None].to(dtype)
    if prediction.covers == region or region == "all":
        return counted
    weight = plan.region(region)
    same = prediction.grid == plan.grid
    weight = weight[..., None] if same else _cell_weight(weight, plan, prediction, by_cell=by_cell)
    weight = weight.to(dtype)
    weight = weight if prediction.ids is None else gather_tokens(weight, prediction.ids)
    return weight if counted is None else weight * counted


def _precise(values: Tensor) -> torch.dtype:
    """A type that counts cells: bfloat16 has no number between 256 and 258."""
    return torch.promote_types(values.dtype, torch.float32)


def _cell_weight(weight: Tensor, plan: MaskPlan, prediction: Located, *, by_cell: bool) -> Tensor:
    grid, values = prediction.grid, prediction.tokens.shape[-1]
    if plan.settles(grid):
        return split_cells(weight, plan.grid, grid)[:, :, :1]
    pixels = Grid.over(grid.input_size, (1,) * len(grid.shape))
    per_pixel = split_cells(refine(weight, plan.grid, pixels), pixels, grid)
    if by_cell:
        return per_pixel.to(_precise(prediction.tokens)).mean(dim=-1, keepdim=True)
    if values % per_pixel.shape[-1]:
        raise ValueError(
            f"hidden units of {plan.unit.stride} pixels cut predicted cells of {grid.stride}, and {values} "
            "values per cell are no pixels; use units that are a multiple of the cell"
        )
    return per_pixel.repeat_interleave(values // per_pixel.shape[-1], dim=-1)


def _expand(weight: Tensor | None, value_weights: Tensor | None, prediction: Tensor) -> Tensor | None:
    """The weight of tokens joined with that of their values."""
    if value_weights is None:
        return weight
    values = value_weights.to(prediction.device, _precise(prediction)).expand_as(prediction)
    return values if weight is None else weight * values


class Outcome(NamedTuple):
    """The unweighted loss, its map per token, and what else the loss measured."""

    value: Tensor
    per_token: Located
    metrics: Mapping[str, Tensor]


class Objective(nn.Module):
    """A loss between what `predictor` says and a target on `region`, counted `weight` times.

    `plan` names the pass in which the predictor ran, and whose plan the region refers to. A region that ends
    in "+cls" counts the class token like one of its cells. A target that brings a loss is held against the
    prediction by that one instead.
    """

    def __init__(
        self,
        *,
        predictor: str,
        target: str,
        loss: Loss,
        region: str = "masked",
        weight: float = 1.0,
        plan: str = "student",
    ) -> None:
        super().__init__()
        self.predictor, self.target, self.loss = predictor, target, loss
        self.region, self.weight, self.plan = region.replace(" ", ""), weight, plan

    def forward(self, step: Step, target: Target) -> Outcome:
        """Compare, and measure."""
        prediction = step.predictions[self.plan][self.predictor]
        values = target.at(step, prediction)
        cells, with_class = split_region(self.region)
        weight = region_weight(step.plans[self.plan], cells, prediction, by_cell=target.by_cell)
        predicted, wanted = prediction.tokens, align(values, like=prediction)
        if with_class:
            assert values.prefix is not None
            predicted, wanted = prediction.with_class(), torch.cat([values.prefix[:, :1], wanted], dim=1)
            weight = None if weight is None else pad(weight, (0, 0, 1, 0), value=1.0)
        weight = _expand(weight, target.value_weights, predicted)
        loss = self.loss if target.loss is None else target.loss
        term: LossTerm = loss(*target.compare(predicted, wanted), weight)
        per_token = (term.per_token[:, 1:] if with_class else term.per_token)[..., None]
        located = Located(per_token, prediction.grid, prediction.ids, lengths=prediction.lengths)
        return Outcome(term.value, located, term.metrics)
