"""A run that goes bad stops, says why, and can be examined."""

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from maskpre.build import build_model
from maskpre.callbacks.sentinel import NonFiniteGuard, NonFiniteLossError
from maskpre.checkpoints.read import read_torch
from maskpre.config import compose
from maskpre.encoders import attend as attend_module
from maskpre.losses.base import LossTerm
from maskpre.losses.mse import MeanSquaredError
from maskpre.ops.attention_choice import Backend
from maskpre.ops.masked_attention import masked_attention_qkv
from maskpre.replay import main as replay
from maskpre.replay import replay as replay_step
from maskpre.run_folder import RunFolder, open_run_folder
from maskpre.training import Training, build_training


class BadAt(MeanSquaredError):
    """A mean squared error that is not a number in chosen calls."""

    def __init__(self, *, calls: list[int]) -> None:
        super().__init__()
        self.bad_calls, self.calls = set(calls), 0

    def forward(self, prediction: Tensor, target: Tensor, weight: Tensor | None) -> LossTerm:
        term = super().forward(prediction, target, weight)
        self.calls += 1
        return term._replace(value=term.value * float("nan")) if self.calls in self.bad_calls else term


def prepare(
    tiny_mae: list[str], folder: Path, *, bad: list[int], tolerate: int
) -> tuple[Training, RunFolder]:
    run = open_run_folder(compose([*tiny_mae, f"run_dir={folder}", f"callbacks.guard.tolerate={tolerate}"]))
    training = build_training(compose([*tiny_mae, f"callbacks.guard.tolerate={tolerate}"]), run)
    training.module.model.objectives["main"].loss = BadAt(calls=bad)
    return training, run


def test_a_loss_that_is_no_number_stops_with_step_samples_and_dump(
    tiny_mae: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training, run = prepare(tiny_mae, tmp_path, bad=[4], tolerate=0)
    with pytest.raises(NonFiniteLossError, match=r"not finite in step 4 .*samples .*maskpre\.replay"):
        training.trainer.fit(training.module, datamodule=training.data)
    dump = run.path / "nonfinite/step-4-rank-0.pt"
    content = read_torch(dump)
    assert len(content["keys"]) == len(content["batch"]["index"]) == 16
    assert all(value.isfinite().all() for value in content["state_dict"].values())
    assert replay([str(dump)]) == 0
    assert content["keys"][0] in capsys.readouterr().out


def test_a_tolerated_step_leaves_weights_and_moments_alone(tiny_mae: list[str], tmp_path: Path) -> None:
    training, _ = prepare(tiny_mae, tmp_path, bad=[3], tolerate=1)
    training.trainer.fit(training.module, datamodule=training.data)
    guard = next(c for c in training.trainer.callbacks if isinstance(c, NonFiniteGuard))
    assert guard.skipped == 1
    assert all(p.isfinite().all() for p in training.module.parameters())
    counts = {int(state["step"]) for state in training.trainer.optimizers[0].state.values()}
    assert counts == {training.trainer.global_step - 1}


def test_replay_names_what_went_wrong_first(
    tiny_mae: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training, run = prepare(tiny_mae, tmp_path, bad=[2], tolerate=0)
    with pytest.raises(NonFiniteLossError):
        training.trainer.fit(training.module, datamodule=training.data)
    dump = run.path / "nonfinite/step-2-rank-0.pt"
    content = torch.load(dump, weights_only=True)
    content["state_dict"]["predictors.main.pred.weight"].fill_(float("inf"))
    torch.save(content, dump)
    assert replay([str(dump)]) == 1
    assert "first thing not finite: the weights predictors.main.pred.weight" in capsys.readouterr().out


@pytest.mark.parametrize("attention", ["reference", "triton"])
def test_replay_attends_as_the_run_did(
    tiny_mae: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attention: Backend
) -> None:
    # Packed samples can only run where blocks are run by their parts.
    chosen = [*tiny_mae, f"attention={attention}", "masking=variable_ratio"]
    cfg = compose([*chosen, f"run_dir={tmp_path}"])
    batch = {"image": torch.zeros(2, 3, 32, 32, dtype=torch.uint8), "index": torch.tensor([0, 1])}
    batch |= {"epoch": torch.zeros(2).long(), "label": torch.full((2,), -1)}
    dump = {"batch": batch, "keys": ["a", "b"], "seed": 0, "progress": 0.0}
    dump |= {"state_dict": build_model(cfg).state_dict(), "config": OmegaConf.to_container(cfg, resolve=True)}
    torch.save(dump, tmp_path / "dump.pt")
    seen: list[Backend] = []

    def attend(*given: Any, backend: Backend = "auto", **named: Any) -> Tensor:
        seen.append(backend)
        return masked_attention_qkv(*given, **named)

    monkeypatch.setattr(attend_module, "masked_attention_qkv", attend)
    _, culprit = replay_step(tmp_path / "dump.pt")
    assert culprit is None
    assert set(seen) == {attention}


def test_a_file_that_is_no_dump_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"batch": {}}, tmp_path / "x.pt")
    assert replay([str(tmp_path / "x.pt")]) == 2
    assert "x.pt is no dump of a training step: it lacks" in capsys.readouterr().err


def test_tolerating_less_than_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tolerate must be at least 0"):
        NonFiniteGuard(folder=RunFolder(tmp_path), tolerate=-1)
