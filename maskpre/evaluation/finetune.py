"""Running a classifier's training: fine-tuning, training from scratch and streaming probes alike."""

from collections.abc import Callable
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
    weights like any. A recipe of 0 epochs scores `model` as it is.

    Raises UserError if a signal stopped the run, which can be continued, or no val sample can be read.
    """
    module = Classifier(
        model=model, data=data, recipe=recipe, seed=seed, config=config or {}, architecture=architecture
    )
    trainer = _trainer(make_trainer, folder, recipe, data)
    if recipe.epochs:
        trainer.fit(module, ckpt_path=None if folder is None else folder.resume_from("auto"))
    if trainer.global_step < trainer.max_steps:
        raise UserError(
            f"stopped at step {trainer.global_step} of {trainer.max_steps}; run it again to go on"
        )
    return _scored(trainer, module)


def _trainer(
    make_trainer: Callable[..., Trainer],
    folder: RunFolder | None,
    recipe: ClassifierRecipe,
    data: PretrainData,
) -> Trainer:
    """A trainer that validates after each of the recipe's epochs."""
    steps_per_epoch = recipe.steps_per_epoch(data) if recipe.epochs else 1
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
    return trainer


def _scored(trainer: Trainer, module: Classifier) -> ProbeResult:
    """The result at the end, also of a run that was interrupted behind its last step."""
    if module.result is None:
        trainer.validate(module, verbose=False)
    if module.result is None:
        raise UserError("no val sample could be read")
    if len(module.recipe.views) > 1:
        trainer.test(module, verbose=False)
    return module.result


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
