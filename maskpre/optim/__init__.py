"""Optimisers, parameter groups and learning-rate schedules."""

from maskpre.optim.lars import Lars
from maskpre.optim.param_groups import (
    DECAY_POLICIES,
    DecayPolicy,
    DecayPolicyName,
    build_param_groups,
    layer_decay_table,
    weight_decay_split,
)
from maskpre.optim.recipe import AdamWRecipe, LambRecipe, LarsRecipe, OptimRecipe, SgdRecipe
from maskpre.optim.schedules import (
    ChainedCosine,
    CosineDecay,
    FlooredCosine,
    LinspaceCosine,
    LrCurve,
    LrRun,
    MultiStep,
    OverlappingCosine,
    Schedule,
    WarmupCosine,
)
from maskpre.optim.torch_scheduler import Curves, lambda_lr

__all__ = [
    "DECAY_POLICIES",
    "AdamWRecipe",
    "ChainedCosine",
    "CosineDecay",
    "Curves",
    "DecayPolicy",
    "DecayPolicyName",
    "FlooredCosine",
    "LambRecipe",
    "Lars",
    "LarsRecipe",
    "LinspaceCosine",
    "LrCurve",
    "LrRun",
    "MultiStep",
    "OptimRecipe",
    "OverlappingCosine",
    "Schedule",
    "SgdRecipe",
    "WarmupCosine",
    "build_param_groups",
    "lambda_lr",
    "layer_decay_table",
    "weight_decay_split",
]
