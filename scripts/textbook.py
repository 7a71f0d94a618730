"""What every reference is that a training step can be measured against."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Self

from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.optim import Optimizer

from maskpre.model import MaskedModel


def optimizer_of(cfg: DictConfig, weights: Iterable[tuple[str, nn.Parameter]], batch: int) -> Optimizer:
    """The experiment's optimiser over weights by name."""
    optimizer, _ = instantiate(cfg.optim).build(
        list(weights), effective_batch=batch, total_steps=100_000, steps_per_epoch=100
    )
    return optimizer


class Textbook(nn.Module, ABC):
    """A system as one would write it down from its paper, with the loss as its forward pass."""

    num_cells: int

    @classmethod
    @abstractmethod
    def teaches(cls, model: MaskedModel) -> bool:
        """Whether the reference does what the model does."""

    @classmethod
    @abstractmethod
    def beside(cls, model: MaskedModel, cfg: DictConfig, size: str | None) -> Self:
        """The reference in the sizes of the model, with its weights where it teaches the model.

        Parts that the model doesn't have get the published sizes, the encoder those of `size` in timm.
        """

    @abstractmethod
    def optimizer(self, cfg: DictConfig, batch: int) -> Optimizer:
        """What trains it; `cfg` is the experiment's configuration."""

    @abstractmethod
    def forward(self, image: Tensor, noise: Tensor) -> Tensor:
        """The loss of normalised pictures; the smallest of `noise`, one number per cell, stay visible."""
