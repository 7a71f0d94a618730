"""From what a step costs to what a run needs."""

import csv
from dataclasses import dataclass
from math import floor, prod
from pathlib import Path
from statistics import median
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from maskpre.config.conflicts import num_devices
from maskpre.errors import UserError
from maskpre.optim import OptimRecipe
from maskpre.planning.gpus import GPUS, Gpu
from maskpre.planning.measure import StepCost, Weights, count_weights, measure_step, plan_model
from maskpre.planning.options import PlanOptions

# Kept free for the allocator's fragments, the CUDA context and communication.
USABLE = 0.9
_WIDE = 4


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one GPU: weights with gradients, optimiser and averages; activations per sample; the rest."""

    state: float
    activations: float
    fixed: float

    def total(self, batch: int) -> float:
        """With `batch` samples at once."""
        return self.state + self.fixed + batch * self.activations

    def largest_batch(self, gpu: Gpu) -> int:
        """Samples that fit at once; 0 if not even one does."""
        left = USABLE * gpu.memory * 1e9 - self.state - self.fixed
        return max(0, floor(left / self.activations))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run needs. `peak_images_per_second` is what the job would do at the GPUs' peak.

    `measured` is the job's speed from measurements, None without any.
    """

    weights: Weights
    cost: StepCost
    memory: Memory
    gpu: Gpu
    num_gpus: int
    global_batch: int
    micro_batch: int
    steps: int
    peak_images_per_second: float
    measured: float | None

    @property
    def flops_per_step(self) -> float:
        """Over all GPUs."""
        return self.cost.flops * self.global_batch

    @property
    def flops_per_run(self) -> float:
        """Over all GPUs and steps."""
        return self.flops_per_step * self.steps

    def gpu_hours(self, images_per_second: float) -> float:
        """Of the whole run at a speed of the job."""
        return self.steps * self.global_batch / images_per_second * self.num_gpus / 3600


def make_plan(cfg: DictConfig) -> Plan:
    """Plan the run that a configuration describes.

    Raises UserError if it can't be planned on paper or the size of the data isn't known.
    """
    options: PlanOptions = instantiate(cfg.plan)
    steps, measured = _steps(cfg, options), measured_speed(options)
    half = str(cfg.trainer.precision) not in ("32-true", "32", "64-true", "64")
    model = plan_model(cfg)
    weights = count_weights(model)
    cost = measure_step(cfg, model, torch.bfloat16 if half else None)
    gpu = GPUS[options.gpu]
    num_gpus = num_devices(cfg.trainer.devices) * cfg.trainer.num_nodes
    shares = prod([num_gpus, cfg.trainer.accumulate_grad_batches])
    peak = num_gpus * (gpu.half if half else gpu.single) * 1e12 / cost.flops
    return Plan(
        weights=weights,
        cost=cost,
        memory=_memory(cfg, weights, cost, num_gpus),
        gpu=gpu,
        num_gpus=num_gpus,
        global_batch=cfg.data.batch_size,
        micro_batch=cfg.data.batch_size // shares,
        steps=steps,
        peak_images_per_second=peak,
        measured=None if measured is None else measured * num_gpus,
    )


def state_tensors(recipe: OptimRecipe) -> int:
    """How many numbers the optimiser keeps for each parameter, found on a small one."""
    weight = torch.nn.Parameter(torch.ones(4, 3))
    group: Any = {"params": [weight], "lr": 1e-3, "weight_decay": 0.0}
    optimizer = recipe.optimizer([group], 1e-3)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    return sum(getattr(value, "shape", None) == weight.shape for value in optimizer.state[weight].values())


def _weight_averages(cfg: DictConfig) -> int:
    """Averages of all weights that callbacks keep beside the model."""
    return sum(str(entry.get("_target_", "")).endswith("WeightEMA") for entry in _callbacks(cfg))


def checkpoint_bytes(cfg: DictConfig, weights: Weights) -> int:
    """Size of a checkpoint: weights, averages and the optimiser's state in float32."""
    kept = 1 + state_tensors(instantiate(cfg.optim)) + _weight_averages(cfg)
    return _WIDE * (kept * weights.trained + weights.averaged)


def _memory(cfg: DictConfig, weights: Weights, cost: StepCost, num_gpus: int) -> Memory:
    """Weights, gradients and optimiser state, all in float32."""
    gradients = _WIDE * weights.trained
    divided: float = checkpoint_bytes(cfg, weights) + gradients
    if isinstance(cfg.trainer.strategy, DictConfig):
        divided /= num_gpus
    whole = _WIDE * weights.frozen
    return Memory(state=divided + whole, activations=cost.activations, fixed=cost.fixed)


def _callbacks(cfg: DictConfig) -> list[DictConfig]:
    return [entry for entry in cfg.callbacks.values() if entry is not None]


def _steps(cfg: DictConfig, options: PlanOptions) -> int:
    if cfg.max_steps is not None:
        return int(cfg.max_steps)
    size = options.num_samples or cfg.data.get("num_train")
    if size is None:
        try:
            size = instantiate(cfg.data).num_train
        except UserError as error:
            raise UserError(f"the size of the data isn't known, set plan.num_samples: {error}") from error
    if size is None:
        raise UserError("the data are a stream without a known end; set plan.num_samples or max_steps")
    return max(1, round(cfg.epochs * (size // cfg.data.batch_size)))


def measured_speed(options: PlanOptions) -> float | None:
    """Images per second of one GPU; None if nobody measured them, UserError if the run named has no log."""
    if options.run is None:
        return options.images_per_second
    path = Path(options.run) / "metrics.csv"
    if not path.is_file():
        raise UserError(f"plan.run: there is no {path}")
    with path.open(newline="") as file:
        rates = [row.get("time/images_per_second") for row in csv.DictReader(file)]
    found = [float(rate) for rate in rates if rate]
    if not found:
        raise UserError(f"plan.run: {path} has no speeds in it; let the run log a few times")
    return median(found) / _run_gpus(Path(options.run))


def _run_gpus(folder: Path) -> int:
    """GPUs that a run had."""
    trainer = OmegaConf.load(folder / "config.yaml").trainer
    return int(num_devices(trainer.devices) * trainer.num_nodes)
