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
    Curves,
    FlooredCosine,
    LrCurve,
    LrRun,
    MultiStep,
    OverlappingCosine,
    Schedule,
    WarmupCosine,
    chained_cosine,
    lambda_lr,
    multi_step,
    overlapping_cosine,
    warmup_cosine,
)

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
    "LrCurve",
    "LrRun",
    "MultiStep",
    "OptimRecipe",
    "OverlappingCosine",
    "Schedule",
    "SgdRecipe",
    "WarmupCosine",
    "build_param_groups",
    "chained_cosine",
    "lambda_lr",
    "layer_decay_table",
    "multi_step",
    "overlapping_cosine",
    "warmup_cosine",
    "weight_decay_split",
]
