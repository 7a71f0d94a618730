"""Checkpoints of the best encoders, as probed on the way."""

from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from maskpre.callbacks.online_probe import OnlineProbe
from maskpre.callbacks.steps import StepCallback
from maskpre.checkpoints.exchange import remove
from maskpre.run_folder import RunFolder


class KeepBest(StepCallback):
    """Keeps the `top_k` checkpoints whose online probe `probe` is best, as best-STEP.ckpt.

    Comes after the online probe in the list of callbacks; without one that measures `probe` every few epochs
    nothing is kept. Equal accuracies prefer the earlier step.
    """

    def __init__(self, *, folder: RunFolder, probe: str = "linear", top_k: int = 1) -> None:
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1 checkpoint, got {top_k}")
        self.folder, self.probe, self.top_k = folder.checkpoints, probe, top_k
        self.scores: dict[int, float] = {}

    def state_dict(self) -> dict[str, Any]:
        """The steps kept, and their accuracies."""
        return {"scores": self.scores}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with what is kept."""
        self.scores = state_dict["scores"]

    def on_step_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if this step was probed and is among the best."""
        self._consider(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The final encoder may be the best."""
        self._consider(trainer)

    def _path(self, step: int) -> Path:
        return self.folder / f"best-{step:08}.ckpt"

    def _consider(self, trainer: Trainer) -> None:
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        probe = next((callback for callback in callbacks if isinstance(callback, OnlineProbe)), None)
        step = trainer.global_step
        probed_now = probe is not None and probe.latest_step == step
        score = probe.latest.get(self.probe) if probe is not None and probed_now else None
        # The ranks that don't probe must save together with the one that does.
        score = trainer.strategy.broadcast(score) if probed_now else None
        if score is None or step in self.scores:
            return
        ranked = sorted({**self.scores, step: score}.items(), key=lambda item: (-item[1], item[0]))
        dropped = {kept for kept, _ in ranked[self.top_k :]}
        self.scores = dict(ranked[: self.top_k])
        if step not in dropped:
            trainer.save_checkpoint(self._path(step))
        if trainer.is_global_zero:
            for kept in dropped:
                remove(self._path(kept))
