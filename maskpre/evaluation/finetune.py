"""Running a classifier's training: fine-tuning, training from scratch and streaming probes alike."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from maskpre.callbacks.meter import Meter
from maskpre.callbacks.progress import ProgressDisplay
from maskpre.callbacks.save import SaveLast
from maskpre.checkpoints.architecture import Architecture
from maskpre.data import PretrainData
from maskpre.errors import UserError
from maskpre.evaluation.classifier import Classifier, ClassifierRecipe
from maskpre.evaluation.result import ProbeResult
from maskpre.evaluation.views import score_views
from maskpre.loggers.csv import AppendingCSVLogger
from maskpre.parallel.watch import RankWatch
from maskpre.plugins import trainer_plugins
from maskpre.run_folder import RunFolder


class EpochLines(Callback):
    """Prints the accuracies after each validation."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print on the first rank."""
        if trainer.is_global_zero and isinstance(pl_module, Classifier) and pl_module.result is not None:
            result = pl_module.result
            print(f"step {trainer.global_step}: top-1 {result.top1:.2%}, top-5 {result.top5:.2%}", flush=True)


def finetune(
    model: nn.Module,
    data: PretrainData,
    recipe: ClassifierRecipe,
    *,
    seed: int = 0,
    folder: RunFolder | None = None,
    make_trainer: Callable[..., Trainer] = Trainer,
    config: dict[str, Any] | None = None,
    architecture: Architecture | None = None,
) -> ProbeResult:
    """Train `model` by the recipe and return its accuracy on the val split at the end.

    `details` holds the best accuracy of any epoch, and that on several views if the recipe wants them. With a
    run folder, checkpoints (`best`, `last`, with the plain containers of `config`) and metrics are written
    there, progress is shown, and a run that was interrupted there goes on; without, nothing is written or
    printed. `make_trainer` takes Lightning's trainer arguments. Parameters of `model` that don't require a
    gradient stay frozen. With the `architecture` that `model` was built from, checkpoints are sources of
    weights like any.

    Raises UserError if a signal stopped the run; it can be continued.
    """
    module = Classifier(
        model=model, data=data, recipe=recipe, seed=seed, config=config or {}, architecture=architecture
    )
    steps_per_epoch = recipe.steps_per_epoch(data)
    trainer = make_trainer(
        max_epochs=-1,
        max_steps=recipe.epochs * steps_per_epoch,
        check_val_every_n_epoch=None,
        val_check_interval=steps_per_epoch,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        **_outputs(folder),
    )
    # Lightning counts this interval in micro-batches, whose number only the built trainer tells.
    trainer.val_check_interval = steps_per_epoch * trainer.accumulate_grad_batches
    trainer.fit(module, ckpt_path=None if folder is None else folder.resume_from("auto"))
    if trainer.global_step < trainer.max_steps or module.result is None:
        raise UserError(
            f"stopped at step {trainer.global_step} of {trainer.max_steps}; run it again to go on"
        )
    several_views = recipe.test_clips * recipe.test_crops > 1
    return _with_views(module, data) if several_views and trainer.is_global_zero else module.result


def _with_views(module: Classifier, data: PretrainData) -> ProbeResult:
    """The result with the accuracy on several views of each sample beside that on one."""
    assert module.result is not None
    scored = score_views(
        module.scored,
        data,
        clips=module.recipe.test_clips,
        crops=module.recipe.test_crops,
        batch_size=module.recipe.batch_size,
        device=module.device,
    )
    details = {**module.result.details, "views_top1": scored.top1, "views_top5": scored.top5}
    return replace(module.result, details=details)


def _outputs(folder: RunFolder | None) -> dict[str, Any]:
    """The trainer's arguments about what it writes and shows."""
    if folder is None:
        return {"logger": False, "enable_checkpointing": False}
    best = ModelCheckpoint(
        dirpath=folder.checkpoints,
        filename="best",
        monitor="val/top1",
        mode="max",
        enable_version_counter=False,
    )
    return {
        "callbacks": [Meter(), ProgressDisplay(), EpochLines(), best, SaveLast(folder=folder), RankWatch()],
        "logger": AppendingCSVLogger(folder=folder),
        "plugins": trainer_plugins(),
        "default_root_dir": folder.path,
    }
