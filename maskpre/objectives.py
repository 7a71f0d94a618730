"""A prediction held against a target on a region."""

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


def region_weight(plan: MaskPlan, region: str, prediction: Located) -> Float[Tensor, "b n #k"] | None:
    """How much each predicted token, or each of its values, belongs to a region; None if all do fully.

    Where the plan's units are finer than the predicted cells, the weight is per pixel of the cell, in the
    order (row, column, channel). Raises ValueError if the values can't be pixels then.
    """
    counted = prediction.counted
    counted = None if counted is None else counted[..., None].to(prediction.tokens.dtype)
    if prediction.covers == region or region == "all":
        return counted
    weight = plan.region(region)
    same = prediction.grid == plan.grid
    weight = weight[..., None] if same else _cell_weight(weight, plan, prediction)
    weight = weight.to(prediction.tokens.dtype)
    weight = weight if prediction.ids is None else gather_tokens(weight, prediction.ids)
    return weight if counted is None else weight * counted


def _cell_weight(weight: Tensor, plan: MaskPlan, prediction: Located) -> Tensor:
    grid, values = prediction.grid, prediction.tokens.shape[-1]
    if plan.settles(grid):
        return split_cells(weight, plan.grid, grid)[:, :, :1]
    pixels = Grid.over(grid.input_size, (1,) * len(grid.shape))
    per_pixel = split_cells(refine(weight, plan.grid, pixels), pixels, grid)
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
    values = value_weights.to(prediction).expand_as(prediction)
    return values if weight is None else weight * values


class Objective(nn.Module):
    """A loss between what `predictor` says and a target on `region`, counted `weight` times.

    `plan` names the pass in which the predictor ran, and whose plan the region refers to. A region that ends
    in "+cls" counts the class token like one of its cells.
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
        self.region, self.weight, self.plan = region, weight, plan

    def forward(self, step: Step, target: Target) -> tuple[Tensor, Located]:
        """The unweighted loss and its map per token."""
        prediction, values = step.predictions[self.plan][self.predictor], target(step)
        cells, with_class = split_region(self.region)
        weight = region_weight(step.plans[self.plan], cells, prediction)
        predicted, wanted = prediction.tokens, align(values, like=prediction)
        if with_class:
            assert values.prefix is not None
            predicted, wanted = prediction.with_class(), torch.cat([values.prefix[:, :1], wanted], dim=1)
            weight = None if weight is None else pad(weight, (0, 0, 1, 0), value=1.0)
        weight = _expand(weight, target.value_weights, predicted)
        term: LossTerm = self.loss(predicted, wanted, weight)
        per_token = term.per_token[:, 1:] if with_class else term.per_token
        return term.value, Located(
            per_token[..., None], prediction.grid, prediction.ids, lengths=prediction.lengths
        )
