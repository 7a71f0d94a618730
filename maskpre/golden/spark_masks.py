"""SparK's mask generator and its schedules."""

from dataclasses import dataclass

import torch

from maskpre.golden.case import CannotReplayError, Case, Tensors
from maskpre.golden.compare import Replay
from maskpre.masking.random import RandomMasking
from maskpre.ops.noise import GivenNoise
from maskpre.optim import CosineDecay, FlooredCosine, LrRun
from maskpre.types import Grid, Step


@dataclass
class Drawn:
    """One call of the official generator; `fmap` is the side of the coarsest map."""

    batch: int
    fmap: int
    mask_ratio: float
    seed: int = 0


@dataclass
class MaskSettings:
    """The calls of a case."""

    unit: str
    cases: list[Drawn]


@dataclass
class ScheduleSettings:
    """Arguments of the official schedule; `wd` is the weight decay at the start."""

    unit: str
    peak_lr: float
    wd: float
    wd_end: float
    warmup_iters: int
    max_iters: int


def replay(case: Case) -> Replay:
    """Masks from the draws, or rates and weight decays at the iterations."""
    unit = case.hyperparameters["unit"]
    if unit == "mask":
        return _masks(case)
    if unit == "schedule":
        return _schedule(case)
    raise CannotReplayError(f"{case.name}: unit must be 'mask' or 'schedule', got {unit!r}")


def _masks(case: Case) -> Replay:
    active: Tensors = {}
    for i, drawn in enumerate(case.settings(MaskSettings).cases):
        grid = Grid((drawn.fmap, drawn.fmap), (32, 32))
        masking = RandomMasking(grid=grid, ratio=drawn.mask_ratio, rounding="nearest")
        noise = GivenNoise({"mask": case.input(f"noise.{i}")})
        plan = masking(Step(batch={}, views={}, noise=noise, progress=0.0))
        active[f"active.{i}"] = ~plan.mask.unflatten(1, (1, *grid.shape))
    return Replay(tensors=active)


def _schedule(case: Case) -> Replay:
    s = case.settings(ScheduleSettings)
    run = LrRun(peak=s.peak_lr, batch_ratio=1.0, total_steps=s.max_iters, steps_per_epoch=1.0)
    lr = FlooredCosine(warmup_epochs=s.warmup_iters).bind(run)
    decay = CosineDecay(end=s.wd_end).bind(run, start=s.wd)
    rows = [[lr(int(step)), decay(int(step)), 0.0] for step in case.input("iterations")]
    return Replay(tensors={"lr_wd_nodecaywd": torch.tensor(rows, dtype=torch.float64)})
