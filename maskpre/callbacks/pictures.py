"""Pictures of what the model reconstructs, as training goes on."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from PIL import Image

from maskpre.callbacks.steps import StepCallback, completes_epochs
from maskpre.evaluation.features import evaluating
from maskpre.evaluation.reconstruction import reconstruction_grid
from maskpre.run_folder import RunFolder
from maskpre.targets.base import PictureTarget


class Pictures(StepCallback):
    """Writes original / masked / reconstruction of the same `num` pictures.

    At the end, and every `every_epochs` if that is given. Systems that predict no pictures write none.
    """

    def __init__(self, *, folder: RunFolder, num: int = 8, every_epochs: float | None = None) -> None:
        if num < 1:
            raise ValueError(f"num must be at least 1 picture, got {num}")
        self.folder, self.num, self.every_epochs = folder, num, every_epochs

    def on_step_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw when another `every_epochs` are complete."""
        if completes_epochs(trainer, self.every_epochs):
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the final model's."""
        self._draw(trainer, pl_module)

    def _draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module: Any = pl_module
        is_picture = [isinstance(target, PictureTarget) for target in module.model.targets.values()]
        if not any(is_picture):
            return
        # All ranks run the model, which exchanges what they hold; the first one writes.
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        batch = next(iter(data.eval_loader("train", batch_size=self.num, limit=self.num)))
        batch = {name: value.to(module.device) for name, value in batch.items()}
        with evaluating(module.model):
            step = module(batch)
        if not trainer.is_global_zero:
            return
        image = reconstruction_grid(step, module.model, self.num)
        self.folder.pictures.mkdir(exist_ok=True)
        Image.fromarray(image).save(self.folder.pictures / f"step-{trainer.global_step:08}.png")
        self._log(trainer, image)

    def _log(self, trainer: Trainer, image: Any) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image("reconstruction", [image], step=trainer.global_step)
            elif isinstance(logger, TensorBoardLogger):
                picture = torch.tensor(image).permute(2, 0, 1)
                logger.experiment.add_image("reconstruction", picture, trainer.global_step)
