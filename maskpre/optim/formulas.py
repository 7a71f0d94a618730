"""The published formulas of schedules, in plain numbers."""

import bisect
import math
from collections.abc import Sequence


def warmup_cosine(epoch: float, *, peak: float, min_lr: float, warmup_epochs: float, epochs: float) -> float:
    """MAE's rule: linear from 0 over the warm-up, then half a cosine over the remaining epochs.

    `epoch` is fractional and counts from 0.
    """
    if epoch < warmup_epochs:
        return peak * epoch / warmup_epochs
    angle = math.pi * (epoch - warmup_epochs) / (epochs - warmup_epochs)
    return min_lr + (peak - min_lr) * 0.5 * (1.0 + math.cos(angle))


def chained_cosine(
    step: int, *, peak: float, min_lr: float, warmup_factor: float, warmup_steps: int, total_steps: int
) -> float:
    """The LinearLR of mmengine followed by CosineAnnealingLR, both counted in iterations.

    The linear part reaches the peak one step before it ends, so two steps run at the peak.
    """
    if step < warmup_steps:
        progress = step / max(warmup_steps - 1, 1)
        return peak * (warmup_factor + (1.0 - warmup_factor) * progress)
    angle = math.pi * (step - warmup_steps) / (total_steps - warmup_steps)
    return min_lr + (peak - min_lr) * 0.5 * (1.0 + math.cos(angle))


def overlapping_cosine(
    t: int, *, peak: float, min_lr: float, warmup_lr: float, warmup_steps: int, total_steps: int
) -> float:
    """Cosine of timm without `warmup_prefix`: the curve starts at t = 0 and is joined after the warm-up."""
    if t < warmup_steps:
        return warmup_lr + t * ((peak - warmup_lr) / warmup_steps)
    if t >= total_steps:
        return min_lr
    return min_lr + 0.5 * (peak - min_lr) * (1.0 + math.cos(math.pi * t / total_steps))


def floored_cosine(
    step: int, *, peak: float, start: float, end: float, warmup_steps: int, total_steps: int
) -> float:
    """Linear from `start` to the peak over the warm-up, then half a cosine to `end` in the last step."""
    if step < warmup_steps:
        return start + (peak - start) * step / warmup_steps
    progress = (step - warmup_steps) / max(total_steps - 1 - warmup_steps, 1)
    return end + (peak - end) * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


def multi_step(
    t: int, *, peak: float, gamma: float, milestones: Sequence[float], warmup_lr: float, warmup_steps: int
) -> float:
    """Linear warm-up, then the peak times `gamma` for each milestone (in steps) that `t` has reached."""
    if t < warmup_steps:
        return warmup_lr + t * ((peak - warmup_lr) / warmup_steps)
    return peak * gamma ** bisect.bisect_right(milestones, t)
