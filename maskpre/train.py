"""Pretraining, `python -m maskpre.train experiment=mae`."""

import signal
import sys

from omegaconf import DictConfig

from maskpre.callbacks.save import SaveLast
from maskpre.config import command
from maskpre.run_folder import open_run_folder
from maskpre.summary import find_callback, print_summary
from maskpre.training import build_training


def run(cfg: DictConfig) -> signal.Signals | None:
    """Train what the configuration describes, and say which signal stopped it, if any did.

    Goes on where the run folder or a stage stopped.
    """
    folder = open_run_folder(cfg)
    with folder.held():
        checkpoint = folder.resume_from(cfg.resume)
        print(f"run folder: {folder.path}" + (f", resuming from {checkpoint}" if checkpoint else ""))
        training = build_training(cfg, folder)
        training.trainer.fit(training.module, datamodule=training.data, ckpt_path=checkpoint)
        if training.trainer.is_global_zero:
            print_summary(training, folder)
        save = find_callback(training.trainer, SaveLast)
        return None if save is None else save.stopped_by


@command("train")
def main(cfg: DictConfig) -> None:
    """Train what the configuration describes, or go on where its run folder stopped."""
    stopped_by = run(cfg)
    if stopped_by is not None:
        sys.exit(128 + stopped_by)


if __name__ == "__main__":
    main()
