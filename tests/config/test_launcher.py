"""Sweeps for SLURM are checked before anything is submitted; tests/slurm submits some."""

import pickle
import subprocess
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from maskpre.config import launcher
from maskpre.config.launcher import check_launcher, uses_slurm
from maskpre.config.library import CONFIG_DIR, hydra_at_configs
from maskpre.errors import ConfigError, Problem, UserError


def jobs(*trainers: dict[str, object]) -> list:
    return [OmegaConf.create({"trainer": trainer}) for trainer in trainers]


def test_the_choice_is_found_among_overrides() -> None:
    assert uses_slurm(["seed=0,1", "hydra/launcher=slurm"])
    assert not uses_slurm(["seed=0,1", "hydra/launcher=basic"])
    assert not uses_slurm(["experiment=mae"])


def test_every_key_is_one_that_the_launcher_takes() -> None:
    config = pytest.importorskip(
        "hydra_plugins.hydra_submitit_launcher.config", reason="needs hydra-submitit-launcher"
    )
    ours = OmegaConf.load(CONFIG_DIR / "hydra/launcher/slurm.yaml")
    assert set(ours) <= set(OmegaConf.structured(config.SlurmQueueConf))


def test_a_job_gets_a_task_for_each_device() -> None:
    overrides = ["hydra/launcher=slurm", "trainer.devices=8", "trainer.num_nodes=2", "seed=0,1"]
    with hydra_at_configs():
        loader = GlobalHydra.instance().config_loader()
        cfg = loader.load_configuration("train", overrides, run_mode=RunMode.MULTIRUN)
    launcher = cfg.hydra.launcher
    assert (launcher.nodes, launcher.tasks_per_node, launcher.gpus_per_node) == (2, 8, 8)


@pytest.mark.parametrize(
    ("trainers", "message"),
    [
        ([{"devices": 1}, {"devices": 2}], "must be of one size, but trainer.devices is 1 and 2"),
        ([{"devices": 2, "num_nodes": 1}, {"devices": 2, "num_nodes": 4}], "trainer.num_nodes is 1 and 4"),
        ([{"devices": "auto"}], "trainer.devices must be a number, got auto"),
    ],
)
def test_jobs_of_different_sizes_are_refused(trainers: list[dict[str, object]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_launcher(jobs(*trainers), multirun=True)


def test_a_single_run_is_no_sweep() -> None:
    with pytest.raises(UserError, match="add -m"):
        check_launcher(jobs({}), multirun=False)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "_PACKAGE", "hydra_plugins.not_there")
    with pytest.raises(UserError, match=r"pip install 'maskpre\[slurm\]'"):
        check_launcher(jobs({}), multirun=True)


def test_errors_survive_the_way_back_from_a_job() -> None:

    error = ConfigError([Problem("masking.ratio", "too large"), Problem("seed", "no number")])
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert again.problems == error.problems


def test_the_script_for_sbatch_is_sound() -> None:
    script = Path(__file__).parents[2] / "scripts/train.sbatch"
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    assert "#SBATCH --requeue" in script.read_text()
