"""Pretraining, `python -m maskpre.train experiment=mae`."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from maskpre.signals import listen_early, noting_early

if __name__ == "__main__":
    # What is imported next takes a while, and a signal meant to save the run would end it.
    listen_early()

from omegaconf import DictConfig

from maskpre.callbacks.save import SaveLast
from maskpre.config import command
from maskpre.run_folder import RunFolder, open_run_folder
from maskpre.slurm import current_job
from maskpre.summary import find_callback, print_summary
from maskpre.training import build_training


def run(cfg: DictConfig) -> signal.Signals | None:
    """Train what the configuration describes, and say which signal stopped it, if any did.

    Goes on where the run folder or a stage stopped.
    """
    with noting_early():
        folder = open_run_folder(cfg)
        with folder.held():
            checkpoint = folder.resume_from(cfg.resume)
            print(f"run folder: {folder.path}" + (f", resuming from {checkpoint}" if checkpoint else ""))
            with _requeued_if_a_stage_stops(folder):
                training = build_training(cfg, folder)
            folder.write_status("running", total_steps=training.trainer.max_steps)
            training.trainer.fit(training.module, datamodule=training.data, ckpt_path=checkpoint)
            if training.trainer.is_global_zero:
                print_summary(training, folder)
            if training.trainer.global_step < training.trainer.max_steps:
                folder.write_status("stopped")
            save = find_callback(training.trainer, SaveLast)
            return None if save is None else save.stopped_by


@contextmanager
def _requeued_if_a_stage_stops(folder: RunFolder) -> Iterator[None]:
    """Requeue a SLURM job whose signal has stopped what comes first."""
    try:
        yield
    except SystemExit as stopped:
        job = current_job()
        if job is None or stopped.code != 128 + signal.SIGTERM:
            raise
        refused = job.requeue()
        print(f"job {job.id} is requeued" if refused is None else f"job {job.id} is not requeued: {refused}")
        folder.write_status("stopped" if refused else "requeued")
        sys.stdout.flush()
        os._exit(0 if refused is None else stopped.code)


@command("train")
def main(cfg: DictConfig) -> None:
    """Train what the configuration describes, or go on where its run folder stopped."""
    stopped_by = run(cfg)
    if stopped_by is not None:
        sys.exit(128 + stopped_by)


if __name__ == "__main__":
    main()
