"""Whole runs: they end, they resume exactly, whatever stopped them."""

import csv
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from lightning import Callback

from maskpre.checkpoints.read import read_torch
from maskpre.config import compose
from maskpre.errors import UserError
from maskpre.run_folder import open_run_folder
from maskpre.training import build_training


def losses(folder: Path) -> dict[int, str]:
    with (folder / "metrics.csv").open(newline="") as file:
        return {int(row["step"]): row["train/loss"] for row in csv.DictReader(file)}


def fit(overrides: list[str], folder: Path) -> None:
    cfg = compose([*overrides, f"run_dir={folder}"])
    run = open_run_folder(cfg)
    training = build_training(cfg, run)
    training.trainer.fit(training.module, datamodule=training.data, ckpt_path=run.resume_from(cfg.resume))


def start(overrides: list[str], folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "maskpre.train", *overrides, f"run_dir={folder}"]
    env = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)


def wait_for_step(process: subprocess.Popen[str], folder: Path, step: int) -> None:
    """Until the run has logged a step; fails if it ends before."""
    deadline = time.monotonic() + 240
    while not ((folder / "metrics.csv").exists() and max(losses(folder), default=0) >= step):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the run made no progress"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def undisturbed(tiny_mae: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    folder = tmp_path_factory.mktemp("undisturbed")
    fit([*tiny_mae, "max_steps=60"], folder)
    return losses(folder)


@pytest.mark.parametrize(("workers", "later_workers"), [(0, 2), (2, 0)])
def test_killed_at_a_random_step_every_later_loss_is_the_same_bit_for_bit(
    tiny_mae: list[str], undisturbed: dict[int, str], tmp_path: Path, workers: int, later_workers: int
) -> None:
    overrides = [*tiny_mae, "max_steps=60", "callbacks.save.every_steps=1"]
    process = start([*overrides, f"data.num_workers={workers}"], tmp_path)
    wait_for_step(process, tmp_path, random.randint(2, 20))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    stopped = int(read_torch(tmp_path / "checkpoints/last.ckpt")["global_step"])
    assert 0 < stopped < 60
    fit([*overrides, f"data.num_workers={later_workers}"], tmp_path)
    assert losses(tmp_path) == undisturbed


def killed_and_resumed(
    overrides: list[str], folder: Path, *, last_step: int, killed_by: int
) -> dict[str, torch.Tensor]:
    """Run in `parts` with a kill on the way, and compare with `whole`, whose weights are returned."""
    process = start(overrides, folder / "parts")
    wait_for_step(process, folder / "parts", random.randint(2, killed_by))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 0 < read_torch(folder / "parts/checkpoints/last.ckpt")["global_step"] < last_step
    fit(overrides, folder / "parts")
    assert losses(folder / "parts") == losses(folder / "whole")
    whole, parts = (
        read_torch(folder / name / "checkpoints/last.ckpt")["state_dict"] for name in ("whole", "parts")
    )
    assert parts.keys() == whole.keys()
    assert all(torch.equal(parts[name], whole[name]) for name in whole)
    return whole


@pytest.mark.slow
def test_killed_anywhere_weights_and_averages_go_on_bit_for_bit(tiny: list[str], tmp_path: Path) -> None:
    overrides = ["experiment=hpm", *tiny, "epochs=7", "max_steps=40", "callbacks.save.every_steps=1"]
    fit(overrides, tmp_path / "whole")
    whole = killed_and_resumed(overrides, tmp_path, last_step=40, killed_by=20)
    assert any(name.startswith("averages.ema.") for name in whole)


def test_killed_amid_clips_the_weights_go_on_bit_for_bit(tiny: list[str], tmp_path: Path) -> None:
    decoder = ["predictor.embed_dim=16", "predictor.depth=1", "predictor.num_heads=2"]
    clips = ["experiment=videomae", *tiny, *decoder, "data.num_frames=4", "callbacks.save.every_steps=1"]
    fit([*clips, "max_steps=30"], tmp_path / "whole")
    overrides = [*clips, "max_steps=30", "data.num_workers=2"]
    killed_and_resumed(overrides, tmp_path, last_step=30, killed_by=8)


def test_resuming_inside_an_accumulated_step_is_exact(tiny_mae: list[str], tmp_path: Path) -> None:
    overrides = [
        *tiny_mae,
        "trainer.accumulate_grad_batches=2",
        "callbacks.ema={_target_: maskpre.callbacks.ema.WeightEMA, decay: 0.9}",
    ]
    fit([*overrides, "callbacks.save.every_steps=5"], tmp_path / "whole")
    whole = read_torch(tmp_path / "whole/checkpoints/last.ckpt")
    cfg = compose([*overrides, f"run_dir={tmp_path / 'parts'}"])
    run = open_run_folder(cfg)
    first = build_training(cfg, run)
    first.trainer.fit_loop.epoch_loop.max_steps = 5
    first.trainer.fit(first.module, datamodule=first.data)
    fit(overrides, tmp_path / "parts")
    parts = read_torch(tmp_path / "parts/checkpoints/last.ckpt")
    for kind in ("state_dict", "ema"):
        assert parts[kind].keys() == whole[kind].keys()
        assert all(torch.equal(parts[kind][name], whole[kind][name]) for name in whole[kind])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops(tiny_mae: list[str], tmp_path: Path, number: signal.Signals) -> None:
    process = start([*tiny_mae, "max_steps=2000"], tmp_path)
    wait_for_step(process, tmp_path, 3)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, output
    saved = int(read_torch(tmp_path / "checkpoints/last.ckpt")["global_step"])
    assert saved >= 3
    assert f"stopped at step {saved} of 2000" in output
    assert f"run_dir={tmp_path}" in output


def test_a_checkpoint_carries_timm_names_and_the_configuration(
    undisturbed: dict[int, str], tiny_mae: list[str], tmp_path: Path
) -> None:
    fit(tiny_mae, tmp_path)
    checkpoint = read_torch(tmp_path / "checkpoints/last.ckpt")
    assert checkpoint["config"]["encoder"]["embed_dim"] == 32
    assert "encoder.blocks.0.attn.qkv.weight" in checkpoint["state_dict"]
    assert "predictors.main.mask_token" in checkpoint["state_dict"]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_gradients_are_clipped(tiny_mae: list[str], tmp_path: Path, precision: str, algorithm: str) -> None:
    limit = 1e-3
    options = [f"trainer.gradient_clip_val={limit}", f"+trainer.gradient_clip_algorithm={algorithm}"]
    cfg = compose([*tiny_mae, *options, f"trainer.precision={precision}", "max_steps=4"])
    training = build_training(cfg, open_run_folder(compose([*tiny_mae, f"run_dir={tmp_path}"])))
    largest: list[float] = []

    class Watch(Callback):
        def on_before_zero_grad(self, trainer, pl_module, optimizer) -> None:
            grads = [p.grad for p in pl_module.parameters() if p.grad is not None]
            if grads:
                order = 2.0 if algorithm == "norm" else float("inf")
                largest.append(float(torch.nn.utils.get_total_norm(grads, norm_type=order)))

    training.trainer.callbacks.append(Watch())
    training.trainer.fit(training.module, datamodule=training.data)
    assert largest
    assert max(largest) == pytest.approx(limit, rel=1e-3)


def test_two_runs_in_one_folder_are_refused(tiny_mae: list[str], tmp_path: Path) -> None:
    run = open_run_folder(compose([*tiny_mae, f"run_dir={tmp_path}"]))
    with run.held(), pytest.raises(UserError, match="another run is writing to"), run.held():
        pytest.fail("the folder is held twice")


def test_starting_anew_in_a_used_folder_is_refused(tiny_mae: list[str], tmp_path: Path) -> None:
    run = open_run_folder(compose([*tiny_mae, f"run_dir={tmp_path}"]))
    run.last.touch()
    with pytest.raises(UserError, match="already holds a run and resume is null"):
        run.resume_from(None)


def test_resuming_from_a_missing_file_names_it(tiny_mae: list[str], tmp_path: Path) -> None:
    run = open_run_folder(compose([*tiny_mae, f"run_dir={tmp_path}"]))
    with pytest.raises(UserError, match=r"no checkpoint at nowhere\.ckpt"):
        run.resume_from("nowhere.ckpt")


def test_a_batch_larger_than_the_data_is_refused_whatever_ends_the_run(
    tiny: list[str], tmp_path: Path
) -> None:
    large = ["data.num_train=8", "data.batch_size=16"]
    for length in (["max_steps=6"], ["max_steps=null", "epochs=2"]):
        cfg = compose(["experiment=mae", *tiny, *large, *length, f"run_dir={tmp_path}"])
        with pytest.raises(UserError, match=r"batch_size \(16\) is larger than the data set \(8 samples\)"):
            build_training(cfg, open_run_folder(cfg))
