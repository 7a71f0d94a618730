"""Optimiser recipes: everything published about how a run is optimised, built for given parameters."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from timm.optim.lamb import Lamb

from maskpre.errors import UserError
from maskpre.optim.lars import Lars
from maskpre.optim.param_groups import (
    DecayPolicyName,
    NamedParameters,
    ParamGroup,
    build_param_groups,
    layer_decay_table,
)
from maskpre.optim.schedules import CosineDecay, LrRun, Schedule
from maskpre.optim.torch_scheduler import Curves


@dataclass(frozen=True, kw_only=True)
class OptimRecipe(ABC):
    """Base rate per `lr_batch` samples, weight decay with its exemptions, layer decay and schedule.

    The peak rate is `base_lr * effective_batch / lr_batch`. `decay_schedule` moves the weight decay during
    the run; None keeps it. `layer_decay` (in (0, 1]) needs the names of a plain ViT, Swin, ResNet or
    ConvNeXt; None leaves all layers at the same rate.
    """

    base_lr: float
    schedule: Schedule
    lr_batch: int = 256
    weight_decay: float = 0.05
    decay_schedule: CosineDecay | None = None
    decay_policy: DecayPolicyName = "mae"
    layer_decay: float | None = None

    def __post_init__(self) -> None:
        if self.base_lr <= 0:
            raise UserError(f"base_lr ({self.base_lr}) must be greater than 0")
        if self.lr_batch <= 0:
            raise UserError(f"lr_batch ({self.lr_batch}) must be greater than 0")
        if self.weight_decay < 0:
            raise UserError(f"weight_decay ({self.weight_decay}) must be at least 0")
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise UserError(f"layer_decay ({self.layer_decay}) must be in (0, 1]")

    def build(
        self,
        named_parameters: NamedParameters,
        *,
        effective_batch: int,
        total_steps: int,
        steps_per_epoch: float,
    ) -> tuple[torch.optim.Optimizer, Curves]:
        """The optimiser and the curves its groups must follow (`maskpre.optim.lambda_lr` joins them).

        `effective_batch` counts samples per optimiser step over all devices and accumulated batches; the
        steps are optimiser steps.
        """
        named = list(named_parameters)
        ratio = effective_batch / self.lr_batch
        run = LrRun(
            peak=self.base_lr * ratio,
            batch_ratio=ratio,
            total_steps=total_steps,
            steps_per_epoch=steps_per_epoch,
        )
        decay = self.decay_schedule
        curves = Curves(
            lr=self.schedule.bind(run),
            weight_decay=None if decay is None else decay.bind(run, start=self.weight_decay),
        )
        scales = None
        if self.layer_decay is not None:
            scales = layer_decay_table((name for name, _ in named), decay=self.layer_decay)
        groups = build_param_groups(
            named, lr=run.peak, weight_decay=self.weight_decay, policy=self.decay_policy, lr_scales=scales
        )
        return self.optimizer(groups, run.peak), curves

    @abstractmethod
    def optimizer(self, groups: list[ParamGroup], lr: float) -> torch.optim.Optimizer:
        """The torch optimiser over ready groups."""


@dataclass(frozen=True, kw_only=True)
class AdamWRecipe(OptimRecipe):
    """AdamW (Loshchilov & Hutter, arXiv 1711.05101).

    The fused kernel is several times faster, on CPU too, but cannot follow gradient clipping under float16
    loss scaling in Lightning: choose `foreach` there.
    """

    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    implementation: Literal["fused", "foreach"] = "fused"

    def optimizer(self, groups: list[ParamGroup], lr: float) -> torch.optim.Optimizer:
        """AdamW over the groups."""
        first, second = self.betas
        fused = self.implementation == "fused"
        return torch.optim.AdamW(
            groups,
            lr=lr,
            betas=(first, second),
            eps=self.eps,
            weight_decay=self.weight_decay,
            fused=fused,
            foreach=not fused,
        )


@dataclass(frozen=True, kw_only=True)
class LarsRecipe(OptimRecipe):
    """LARS as in MAE's linear probe."""

    weight_decay: float = 0.0
    momentum: float = 0.9
    trust_coefficient: float = 0.001

    def optimizer(self, groups: list[ParamGroup], lr: float) -> torch.optim.Optimizer:
        """LARS over the groups."""
        return Lars(groups, lr=lr, momentum=self.momentum, trust_coefficient=self.trust_coefficient)


@dataclass(frozen=True, kw_only=True)
class LambRecipe(OptimRecipe):
    """LAMB (You et al., arXiv 1904.00962) as in timm.

    `max_grad_norm` bounds the norm of all gradients together inside the optimiser (None: it doesn't).
    `always_adapt` scales the step by the trust ratio where there is no weight decay, too.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-6
    max_grad_norm: float | None = 1.0
    always_adapt: bool = False
    bias_correction: bool = True

    def optimizer(self, groups: list[ParamGroup], lr: float) -> torch.optim.Optimizer:
        """LAMB over the groups."""
        first, second = self.betas
        lamb: torch.optim.Optimizer = Lamb(
            groups,
            lr=lr,
            betas=(first, second),
            eps=self.eps,
            weight_decay=self.weight_decay,
            max_grad_norm=self.max_grad_norm,
            always_adapt=self.always_adapt,
            bias_correction=self.bias_correction,
        )
        return lamb


@dataclass(frozen=True, kw_only=True)
class SgdRecipe(OptimRecipe):
    """SGD with momentum; `nesterov` looks ahead (Nesterov 1983)."""

    momentum: float = 0.9
    nesterov: bool = True

    def optimizer(self, groups: list[ParamGroup], lr: float) -> torch.optim.Optimizer:
        """SGD over the groups."""
        return torch.optim.SGD(groups, lr=lr, momentum=self.momentum, nesterov=self.nesterov)
