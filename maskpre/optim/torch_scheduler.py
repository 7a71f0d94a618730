"""Torch's scheduler that moves learning rates and weight decays along curves."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.optim.lr_scheduler import LambdaLR

from maskpre.optim.schedules import DecayCurve, LrCurve


@dataclass(frozen=True, kw_only=True)
class Curves:
    """How an optimiser's groups move: the learning rate, and the weight decay if that moves too."""

    lr: LrCurve
    weight_decay: DecayCurve | None = None

    def __call__(self, step: int, layer_scale: float = 1.0) -> float:
        """The learning rate; see `LrCurve`."""
        return self.lr(step, layer_scale)


class _CurvesLR(LambdaLR):
    """Sets the weight decay of decaying groups beside the learning rate."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, factors: list[Callable[[int], float]], decay: DecayCurve
    ):
        self._decay = decay
        self._decaying = [group["weight_decay"] > 0 for group in optimizer.param_groups]
        super().__init__(optimizer, factors)

    def get_lr(self) -> list[float | torch.Tensor]:
        """The rates of this step; the weight decay is set on the way."""
        for group, decays in zip(self.optimizer.param_groups, self._decaying, strict=True):
            if decays:
                group["weight_decay"] = self._decay(self.last_epoch)
        return super().get_lr()

    def state_dict(self) -> dict[str, object]:
        """The step alone: curves are rebuilt from the configuration."""
        own = ("_decay", "_decaying")
        return {key: value for key, value in super().state_dict().items() if key not in own}


def lambda_lr(optimizer: torch.optim.Optimizer, curve: Curves | LrCurve) -> LambdaLR:
    """Torch's scheduler that follows `curve` in every group; step it once per optimiser step.

    Groups carry their peak in `lr` and their layer-wise scale in `lr_scale` (1 when absent). Nothing of the
    curve is stored in the scheduler's state, only the step.
    """

    def factor(peak: float, layer_scale: float) -> Callable[[int], float]:
        return lambda step: curve(step, layer_scale) / peak

    factors = [factor(group["lr"], group.get("lr_scale", 1.0)) for group in optimizer.param_groups]
    if isinstance(curve, Curves) and curve.weight_decay is not None:
        return _CurvesLR(optimizer, factors, curve.weight_decay)
    return LambdaLR(optimizer, factors)
