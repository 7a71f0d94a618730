"""LARS, the optimiser of MAE's linear probe."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT


class Lars(Optimizer):
    """SGD with momentum whose update is rescaled per tensor (You et al., arXiv 1708.03888), as MAE uses it.

    For parameters of two or more dimensions the gradient plus weight decay is multiplied by
    `trust_coefficient * |p| / |update|` (1 where either norm is zero). 1-D parameters get neither weight
    decay nor the ratio. The learning rate multiplies the momentum buffer, not what enters it.
    """

    def __init__(
        self,
        params: ParamsT,
        *,
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.9,
        trust_coefficient: float = 0.001,
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "trust_coefficient": trust_coefficient,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._update(group, [p for p in group["params"] if p.grad is not None])
        return loss

    def _update(self, group: dict[str, Any], params: list[torch.Tensor]) -> None:
        if not params:
            return
        updates = _trusted([p for p in params if p.ndim > 1], group)
        updates |= {p: p.grad for p in params if p.ndim <= 1 and p.grad is not None}
        buffers = [self._momentum(p) for p in params]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, [updates[p] for p in params])
        torch._foreach_add_(params, buffers, alpha=-group["lr"])

    def _momentum(self, param: torch.Tensor) -> torch.Tensor:
        state = self.state[param]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(param)
        return state["momentum_buffer"]


def _trusted(matrices: list[torch.Tensor], group: dict[str, Any]) -> dict[torch.Tensor, torch.Tensor]:
    """The decayed gradient of each matrix times its trust ratio."""
    if not matrices:
        return {}
    gradients = [p.grad for p in matrices if p.grad is not None]
    updates = torch._foreach_add(gradients, matrices, alpha=group["weight_decay"])
    ratios = [
        torch.where((size > 0) & (change > 0), group["trust_coefficient"] * size / change, 1.0)
        for size, change in zip(torch._foreach_norm(matrices), torch._foreach_norm(updates), strict=True)
    ]
    return dict(zip(matrices, torch._foreach_mul(updates, ratios), strict=True))
