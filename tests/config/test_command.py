"""Command lines: what they print, how they end, what they leave behind."""

import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from omegaconf import DictConfig

from maskpre.config import command
from maskpre.errors import UserError


@dataclass
class Ended:
    """A command line that has ended."""

    code: int
    out: str
    err: str


@command("train")
def show(cfg: DictConfig) -> None:
    """Show two values."""
    if cfg.seed == 13:
        raise UserError("13 brings bad luck")
    if cfg.seed == 14:
        raise KeyError("bug")
    if cfg.seed == 15:
        raise KeyboardInterrupt
    print(f"ratio {cfg.masking.ratio}, seed {cfg.seed}")


@pytest.fixture(autouse=True)
def _quiet_logging() -> Iterator[None]:
    """Hydra sets logging up for the whole process."""
    handlers, level = list(logging.root.handlers), logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["show", *arguments])
        code = 0
        try:
            show()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Ended(code, *capsys.readouterr())

    return run


def test_it_runs_and_leaves_nothing_behind(run, tmp_path: Path) -> None:
    ended = run("experiment=mae", "masking.ratio=0.6")
    assert (ended.code, ended.out) == (0, "ratio 0.6, seed 0\n")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_configuration_ends_with_2_and_no_stack_trace(run) -> None:
    ended = run("masking.raito=0.6", "lsos=mse")
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.startswith(
        "2 mistakes in the configuration:\n  masking.raito: RandomMasking has no 'raito'"
    )
    assert "lsos: the configuration has no 'lsos'; did you mean 'loss'?" in ended.err
    assert "Traceback" not in ended.err
    assert "HYDRA_FULL_ERROR" not in ended.err


def test_debugging_shows_the_stack_trace(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKPRE_DEBUG", "1")
    with pytest.raises(UserError, match=r"masking\.raito"):
        run("masking.raito=0.6")


def test_a_users_mistake_at_run_time_ends_with_1_and_no_stack_trace(run) -> None:
    ended = run("seed=13")
    assert (ended.code, ended.err) == (1, "13 brings bad luck\n")


def test_an_interruption_ends_with_130_and_no_stack_trace(run) -> None:
    ended = run("seed=15")
    assert (ended.code, ended.err) == (130, "interrupted\n")


def test_a_bug_keeps_its_stack_trace(run) -> None:
    ended = run("seed=14")
    assert ended.code == 1
    assert 'raise KeyError("bug")' in ended.err


def test_half_precision_without_a_gpu_is_refused_at_the_start(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    ended = run("trainer.precision=16-mixed")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("trainer.precision=16-mixed needs a GPU, and there is none here; use")


def test_kernels_without_a_gpu_are_refused_at_the_start(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    ended = run("attention=triton")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == "attention=triton needs a CUDA GPU, and there is none here; use attention=auto\n"


def test_a_sweep_runs_every_combination_and_leaves_only_its_own_text(run, tmp_path: Path) -> None:
    ended = run("masking.ratio=0.5,0.6", "-m", "seed=1,2")
    assert ended.code == 0
    lines = [line for line in ended.out.splitlines() if line.startswith("ratio")]
    assert lines == [f"ratio {ratio}, seed {seed}" for ratio in (0.5, 0.6) for seed in (1, 2)]
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*.*")] == [Path("runs/multirun.yaml")]


def test_a_sweep_with_a_mistake_in_its_last_job_starts_none(run) -> None:
    ended = run("-m", "masking.ratio=0.5,1.5", "loss=mse,mes")
    assert (ended.code, ended.out) == (2, "")
    assert "masking: mask ratio must be between 0 and 1, got 1.5" in ended.err
    assert ended.err.count("there is no configs/loss/mes.yaml") == 1


def test_values_to_sweep_over_need_the_flag(run) -> None:
    ended = run("masking.ratio=0.5,0.6")
    assert ended.code == 2
    assert "To sweep over it, add --multirun to your command line" in ended.err


def test_cfg_shows_a_wrong_configuration_too_and_says_so(run) -> None:
    ended = run("--cfg", "job", "-p", "masking", "masking.raito=0.6", "masking=grdi")
    assert ended.code == 2
    assert "_target_: maskpre.masking.random.RandomMasking" in ended.out
    assert "did you mean 'grid'?" in ended.err
    assert "did you mean 'ratio'?" in ended.err


def test_help_lists_choices_keys_and_examples(run) -> None:
    ended = run("--help")
    assert ended.code == 0
    assert ended.out.startswith("Show two values.\n\npython -m maskpre.train [GROUP=CHOICE ...]")
    assert re.search(
        r"\n  masking\n(    .*\n)*    blocks +Random square units larger than a cell\n", ended.out
    )
    assert "experiment=mae data=folder data.root=PICTURES" in ended.out
    assert "\n# Length of the run: epochs, unless max_steps" in ended.out
    assert "\nseed: 0\n" in ended.out
    assert "--cfg job" in ended.out


def test_configurations_of_the_users_own(run, tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "experiment" / "sparse.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("# @package _global_\ndefaults:\n  - /experiment/mae\nmasking:\n  ratio: 0.9\n")
    assert run("--config-dir", "mine", "experiment=sparse").out == "ratio 0.9, seed 0\n"
    assert "did you mean 'sparse'?" in run("--config-dir", "mine", "experiment=sparze").err


def test_training_from_another_folder(tmp_path: Path) -> None:
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "maskpre.train",
            "--cfg",
            "job",
            "-p",
            "masking",
            "masking.ratio=0.6",
            "sede=1",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2
    assert "ratio: 0.6" in ended.stdout
    assert ended.stderr.strip().endswith(
        "sede: the configuration has no 'sede'; did you mean 'seed'?\n      set on the command line: sede=1"
    )
    assert list(tmp_path.iterdir()) == []
