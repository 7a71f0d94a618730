"""Supervised training of a classifier: fine-tuning, from scratch, or a head on a frozen encoder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from lightning import LightningModule
from timm.loss.cross_entropy import SoftTargetCrossEntropy
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.optim import Optimizer

from maskpre.callbacks.meter import log_metrics
from maskpre.checkpoints.architecture import Architecture
from maskpre.checkpoints.fine_tuned import RECORD, ClassifierRecord
from maskpre.data import PretrainData
from maskpre.data.loader import BatchLoader
from maskpre.data.transforms import Transform
from maskpre.errors import UserError
from maskpre.evaluation.augment import BatchAugment
from maskpre.evaluation.features import inputs_for, pixels_of
from maskpre.evaluation.global_rng import step_seed
from maskpre.evaluation.result import HitCounter, ProbeResult
from maskpre.evaluation.views import Views
from maskpre.optim import OptimRecipe, lambda_lr
from maskpre.optim.clipping import clip_gradients

LOSSES: Mapping[str, type[nn.Module]] = {
    "cross_entropy": SoftTargetCrossEntropy,
    "binary_cross_entropy": nn.BCEWithLogitsLoss,
}


@dataclass(frozen=True, kw_only=True)
class ClassifierRecipe:
    """A published way to train a classifier.

    `batch_size` counts samples per optimiser step over all devices. `drop_path_rate` and `global_pool` (None:
    the architecture's own) describe the network; `head_std` is the deviation of a fresh head's weights,
    whose bias is zero (None keeps the architecture's initialisation), and `head_dropout` the share of its
    inputs dropped in training. `clip_grad` bounds the gradient norm;
    `ema_decay` evaluates a moving average of the weights instead of the weights. `loss` holds scores against
    soft targets: cross entropy over the classes, or binary cross entropy of each class, averaged. In the end
    videos are scored on `test_clips` * `test_crops` views each, if that is more than one. With 0 `epochs`
    nothing is trained, only scored. `trainable` names the parts that learn, as "head" (None: all do).
    """

    optim: OptimRecipe
    transform: Transform
    augment: BatchAugment
    epochs: int
    batch_size: int
    drop_path_rate: float = 0.0
    global_pool: Literal["avg", "token"] | None = None
    head_std: float | None = None
    head_dropout: float = 0.0
    clip_grad: float | None = None
    ema_decay: float | None = None
    loss: Literal["cross_entropy", "binary_cross_entropy"] = "cross_entropy"
    test_clips: int = 1
    test_crops: int = 1
    trainable: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise UserError(f"loss must be one of {', '.join(map(repr, LOSSES))}, got {self.loss!r}")
        for name, rate in (("head_dropout", self.head_dropout), ("drop_path_rate", self.drop_path_rate)):
            if not 0 <= rate < 1:
                raise UserError(f"{name} must be in [0, 1), got {rate}")
        if self.epochs < 0:
            raise UserError(f"epochs must be at least 0, got {self.epochs}")
        Views(clips=self.test_clips, crops=self.test_crops)

    @property
    def views(self) -> Views:
        """Those of each video in the end."""
        return Views(clips=self.test_clips, crops=self.test_crops)

    def steps_per_epoch(self, data: PretrainData) -> int:
        """Optimiser steps in one pass; UserError if the training split is smaller than one batch."""
        num_samples = len(data.source("train"))
        if num_samples < self.batch_size:
            raise UserError(
                f"recipe.batch_size ({self.batch_size}) must be at most the training samples ({num_samples})"
            )
        return num_samples // self.batch_size


class Classifier(LightningModule):
    """Trains `model` (pictures to class scores) on the labelled data, scoring the val split every epoch.

    Every random number of a step depends on `seed`, the rank and the step's number. Logs `val/top1` and
    `val/top5` in [0, 1]; `result` is the last score. A test scores the recipe's views. With the
    `architecture` that `model` was built from, its checkpoints are sources of weights like any. Raises
    UserError if a sample has no label, or several views are wanted of pictures.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        data: PretrainData,
        recipe: ClassifierRecipe,
        seed: int,
        config: dict[str, Any],
        architecture: Architecture | None = None,
    ) -> None:
        super().__init__()
        data.source("train").require_labels()
        data.source("val").require_labels()
        if len(recipe.views) > 1:
            recipe.views.videos(data)
        self.num_classes = data.num_classes
        self.model, self.data, self.recipe, self.seed, self.config = model, data, recipe, seed, config
        self.architecture = architecture
        self.inputs = inputs_for(data)
        self.loss = LOSSES[recipe.loss]()
        self.ema: ModelEmaV3 | None = None
        if recipe.ema_decay is not None:
            self.ema = ModelEmaV3(model, decay=recipe.ema_decay).requires_grad_(False)
        self.result: ProbeResult | None = None
        self.best_top1: Tensor
        self.register_buffer("best_top1", torch.zeros((), dtype=torch.float64))
        self._hits = HitCounter()

    @property
    def scored(self) -> nn.Module:
        """The network that is evaluated: the moving average if there is one."""
        return self.model if self.ema is None else self.ema.module

    def train_dataloader(self) -> BatchLoader:
        """Micro-batches of this rank from the trainer's current step on."""
        trainer = self.trainer
        return self.data.train_loader(
            num_steps=trainer.max_steps,
            start_step=trainer.global_step,
            micro_batches=trainer.accumulate_grad_batches,
            rank=trainer.global_rank,
            world=trainer.world_size,
            transform=self.recipe.transform,
            batch_size=self.recipe.batch_size,
        )

    def _micro_batch(self) -> int:
        """Samples that a rank sees at once in training, and at most in evaluation."""
        trainer = self.trainer
        return max(1, self.recipe.batch_size // (trainer.world_size * trainer.accumulate_grad_batches))

    def val_dataloader(self) -> BatchLoader:
        """The val split, shared among the ranks."""
        rank, world = self.trainer.global_rank, self.trainer.world_size
        return self.data.eval_loader("val", batch_size=self._micro_batch(), rank=rank, world=world)

    def test_dataloader(self) -> BatchLoader:
        """The views of the val split, shared among the ranks."""
        rank, world = self.trainer.global_rank, self.trainer.world_size
        return self.recipe.views.loader(self.data, batch_size=self._micro_batch(), rank=rank, world=world)

    def on_train_batch_start(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Seed the generator that stochastic depth draws from, so that a resumed step repeats."""
        torch.manual_seed(step_seed(self.seed, self.global_rank, batch_idx))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Soft-target cross-entropy of the augmented batch."""
        images, targets = self.recipe.augment(
            self.inputs.normalize(pixels_of(batch)),
            batch["label"],
            num_classes=self.num_classes,
            seed=step_seed(self.seed, self.global_rank, batch_idx),
        )
        loss: Tensor = self.loss(self.model(images), targets)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Move the average after each optimiser step."""
        if self.ema is not None and (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0:
            self.ema.update(self.model, step=self.global_step)

    def _scores(self, batch: dict[str, Tensor]) -> Tensor:
        scores: Tensor = self.scored(self.inputs.normalize(pixels_of(batch)))
        return scores

    def on_validation_epoch_start(self) -> None:
        """Start counting."""
        self._hits.reset()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Count hits; each sample counts once."""
        self._hits.add(self._scores(batch), batch["label"])

    def on_validation_epoch_end(self) -> None:
        """Accuracies over all ranks."""
        found = self._hits.result(self.trainer)
        self.best_top1.clamp_(min=found.top1)
        self.result = replace(found, details={"best_top1": self.best_top1.item()})
        scores = {"val/top1": found.top1, "val/top5": found.top5}
        self.log_dict(scores, logger=False)
        log_metrics(self.trainer, scores)

    def on_test_epoch_start(self) -> None:
        """Start counting."""
        self._hits.reset()

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Count hits of the mean over a video's views; each video counts once."""
        views = self.recipe.views
        self._hits.add(views.mean(self._scores(batch)), views.labels(batch["label"]))

    def on_test_epoch_end(self) -> None:
        """Accuracies over all ranks, beside those of single views."""
        assert self.result is not None
        found = self._hits.result(self.trainer)
        scores = {"views_top1": found.top1, "views_top5": found.top5}
        self.result = replace(self.result, details={**self.result.details, **scores})
        log_metrics(self.trainer, {f"val/{name}": value for name, value in scores.items()})

    def configure_optimizers(self) -> Any:
        """The recipe's optimiser over what is trainable, and its schedule per optimiser step."""
        optimizer, curve = self.recipe.optim.build(
            self.model.named_parameters(),
            effective_batch=self.recipe.batch_size,
            total_steps=self.trainer.max_steps,
            steps_per_epoch=self.recipe.steps_per_epoch(self.data),
        )
        scheduler = lambda_lr(optimizer, curve)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as the recipe says; Lightning refuses a trainer that is set to something else."""
        limit = gradient_clip_val if self.recipe.clip_grad is None else self.recipe.clip_grad
        clip_gradients(self, optimizer, limit, gradient_clip_algorithm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the configuration, and what the network is, beside the weights."""
        checkpoint["config"] = self.config
        if self.architecture is not None:
            record = ClassifierRecord(
                architecture=self.architecture,
                num_classes=self.num_classes,
                global_pool=self.recipe.global_pool or "avg",
                channels=self.data.channels,
                image_size=self.data.image_size,
                mean=list(self.data.mean),
                std=list(self.data.std),
            )
            checkpoint[RECORD] = record.plain()
