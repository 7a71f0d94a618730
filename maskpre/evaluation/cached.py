"""Probes trained by gradient descent on cached features: linear and attentive."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR

from maskpre.errors import UserError
from maskpre.evaluation.base import Probe
from maskpre.evaluation.features import Features, evaluating
from maskpre.evaluation.heads import AttentiveHead, build_probe_head
from maskpre.evaluation.result import ProbeResult, count_hits
from maskpre.optim import OptimRecipe, lambda_lr


@dataclass(frozen=True, kw_only=True)
class TrainedProbe(Probe):
    """A head fitted with `optim` on features computed once, without augmentation.

    One head per rate of `base_lrs` is fitted in the same pass over the data; with several, a share `holdout`
    of the training features chooses among them, never the test features. The result depends on the
    features and `seed` only.
    """

    optim: OptimRecipe
    base_lrs: Sequence[float]
    epochs: int
    batch_size: int
    holdout: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.base_lrs:
            raise UserError("base_lrs is empty; it needs at least one rate")
        if len(self.base_lrs) > 1 and not 0 < self.holdout < 1:
            raise UserError(f"holdout ({self.holdout}) must be in (0, 1) to choose among several base_lrs")

    @abstractmethod
    def head(self, dim: int, num_classes: int, generator: torch.Generator) -> nn.Module:
        """A fresh classifier for features of width `dim`."""

    def __call__(self, train: Features, test: Features) -> ProbeResult:
        """See `Probe`; `details` holds the chosen `base_lr` and the accuracy on the training features."""
        generator = torch.Generator().manual_seed(self.seed)
        num_classes = max(train.num_classes, test.num_classes)
        device, dim = train.values.device, train.values.shape[-1]
        heads = [self.head(dim, num_classes, generator).to(device) for _ in self.base_lrs]
        chosen = 0
        if len(heads) > 1:
            rows = torch.randperm(len(train), generator=generator).to(device)
            held = max(1, round(self.holdout * len(train)))
            train, judge = train[rows[held:]], train[rows[:held]]
            self._fit(heads, train, generator)
            scores = [accuracy(head, judge, self.batch_size)[0] for head in heads]
            chosen = max(range(len(heads)), key=scores.__getitem__)
        else:
            self._fit(heads, train, generator)
        top1, top5 = accuracy(heads[chosen], test, self.batch_size)
        train_top1, _ = accuracy(heads[chosen], train, self.batch_size)
        details = {"base_lr": self.base_lrs[chosen], "train_top1": train_top1}
        return ProbeResult(top1=top1, top5=top5, details=details)

    def _fit(self, heads: list[nn.Module], train: Features, generator: torch.Generator) -> None:
        """Train all heads on the same full batches."""
        batch = min(self.batch_size, len(train))
        steps = len(train) // batch
        drivers = [
            self._driver(head, lr, batch, steps) for head, lr in zip(heads, self.base_lrs, strict=True)
        ]
        for _ in range(self.epochs):
            order = torch.randperm(len(train), generator=generator).to(train.values.device)
            for rows in order[: steps * batch].split(batch):
                samples = train[rows]
                values = samples.values.float()
                for head, (optimizer, scheduler) in zip(heads, drivers, strict=True):
                    optimizer.zero_grad()
                    functional.cross_entropy(head(values), samples.labels).backward()
                    optimizer.step()
                    scheduler.step()

    def _driver(
        self, head: nn.Module, base_lr: float, batch: int, steps: int
    ) -> tuple[torch.optim.Optimizer, LambdaLR]:
        optimizer, curve = replace(self.optim, base_lr=base_lr).build(
            head.named_parameters(),
            effective_batch=batch,
            total_steps=self.epochs * steps,
            steps_per_epoch=steps,
        )
        return optimizer, lambda_lr(optimizer, curve)


def accuracy(head: nn.Module, features: Features, batch_size: int) -> tuple[float, float]:
    """Top-1 and top-5 accuracy of a head in evaluation mode, in [0, 1]."""
    hits = torch.zeros(2, dtype=torch.int64)
    with evaluating(head):
        for rows in torch.arange(len(features), device=features.values.device).split(batch_size):
            samples = features[rows]
            hits += torch.tensor(count_hits(head(samples.values.float()), samples.labels))
    top1, top5 = (hits.double() / len(features)).tolist()
    return top1, top5


@dataclass(frozen=True, kw_only=True)
class LinearProbe(TrainedProbe):
    """MAE's linear probe (see `build_probe_head`) on pooled features."""

    pool: Literal["cls", "avg", "maps"] = "avg"

    def head(self, dim: int, num_classes: int, generator: torch.Generator) -> nn.Module:
        """BatchNorm and a linear layer."""
        return build_probe_head(dim, num_classes, generator=generator)


@dataclass(frozen=True, kw_only=True)
class AttentiveProbe(TrainedProbe):
    """A single-query attention head (see `AttentiveHead`) on all tokens."""

    pool: Literal["tokens"] = "tokens"
    num_heads: int = 4

    def head(self, dim: int, num_classes: int, generator: torch.Generator) -> nn.Module:
        """Attention pooling and a linear layer."""
        return AttentiveHead(dim=dim, num_classes=num_classes, num_heads=self.num_heads, generator=generator)
