"""What a training step costs, found with tensors that have shapes only: nothing is allocated or computed."""

from dataclasses import dataclass

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from maskpre.build import build_model
from maskpre.encoders.attend import set_attention
from maskpre.errors import UserError
from maskpre.model import MaskedModel
from maskpre.ops.noise import KeyedNoise

# Of the sizes that are tried, the smaller one; memory and work grow in proportion beyond.
_BATCH = 2


@dataclass(frozen=True)
class StepCost:
    """Work (floating-point operations of matrix products, multiply and add counted apart) and memory (bytes).

    `flops` and `activations` are per sample and training step, backward pass and teachers included;
    `fixed` is the memory that does not grow with the batch, beside weights and their state.
    """

    flops: float
    activations: float
    fixed: float


@dataclass(frozen=True)
class Weights:
    """Numbers of parameters: trained ones, those of the encoder among them, averages, and frozen ones."""

    trained: int
    encoder: int
    averaged: int
    frozen: int


def _count(module: nn.Module, *, trained: bool | None = None) -> int:
    return sum(p.numel() for p in module.parameters() if trained in (None, p.requires_grad))


def plan_model(cfg: DictConfig) -> MaskedModel:
    """The configuration's model on the meta device, with torch's fused attention."""
    with torch.device("meta"):
        model = build_model(cfg)
    set_attention(model, "sdpa")
    return model


def count_weights(model: MaskedModel) -> Weights:
    """How many parameters the model has."""
    trained = _count(model, trained=True)
    averaged = sum(map(_count, model.averages.values()))
    held = [part for teacher in model.teachers.values() for part in getattr(teacher, "_held", ())]
    frozen = sum(map(_count, held)) + _count(model, trained=False) - averaged
    return Weights(trained, _count(model.encoder), averaged, frozen)


def measure_step(cfg: DictConfig, model: MaskedModel, half: torch.dtype | None) -> StepCost:
    """Run two small batches through forward and backward on paper, under autocast to `half` if it is given.

    Raises UserError if a part of the model needs numbers to know what to do next.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = model.to_empty(device="cpu").train()
        first, second = (_run(cfg, model, size, half) for size in (_BATCH, 2 * _BATCH))
    per_sample = (second[1] - first[1]) / _BATCH
    return StepCost(
        flops=(second[0] - first[0]) / _BATCH,
        activations=per_sample,
        fixed=max(0.0, first[1] - _BATCH * per_sample),
    )


def _batch(cfg: DictConfig, size: int) -> dict[str, Tensor]:
    side, channels = cfg.data.image_size, cfg.data.channels
    frames = cfg.data.get("num_frames")
    shape = (size, channels, *(() if frames is None else (frames,)), side, side)
    ids = torch.zeros(size, dtype=torch.int64)
    pixels = torch.empty(shape, dtype=torch.uint8)
    return {"image" if frames is None else "video": pixels, "index": ids, "epoch": ids}


def _run(cfg: DictConfig, model: MaskedModel, size: int, half: torch.dtype | None) -> tuple[float, float]:
    """Operations of a step, and bytes that the forward pass keeps for the backward pass."""
    batch, kept = _batch(cfg, size), _Kept(model)
    counter = FlopCounterMode(display=False)
    try:
        with counter:
            with (
                saved_tensors_hooks(kept.keep, lambda tensor: tensor),
                torch.autocast("cpu", half, enabled=half is not None),
            ):
                noise = KeyedNoise(0, batch["epoch"], batch["index"])
                step = model(batch, noise=noise, progress=0.5)
            assert step.total is not None
            step.total.backward()
    except (NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"the step can't be planned on paper, a part of it looks at numbers: {error}"
        ) from error
    finally:
        model.zero_grad(set_to_none=True)
    return float(counter.get_total_flops()), float(kept.num_bytes)


class _Kept:
    """Counts each storage that is kept for the backward pass once, weights not at all."""

    def __init__(self, model: nn.Module) -> None:
        own = [*model.parameters(), *model.buffers()]
        # Kept alive, so that no other storage gets the same address.
        self._storages = {value.untyped_storage()._cdata: value.untyped_storage() for value in own}
        self.num_bytes = 0

    def keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._storages:
            self._storages[storage._cdata] = storage
            self.num_bytes += storage.nbytes()
        return tensor
