"""The doctor sees what is there and says what would fail, on machines without GPU and SLURM too."""

import socket
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from maskpre import doctor
from maskpre.config import compose
from maskpre.diagnosis import disk, gpus, network
from maskpre.diagnosis.base import Finding
from maskpre.diagnosis.data import check_data
from maskpre.diagnosis.disk import check_disk
from maskpre.diagnosis.gpus import check_gpus
from maskpre.diagnosis.logins import check_logins
from maskpre.diagnosis.network import check_network
from maskpre.diagnosis.slurm import check_slurm
from maskpre.diagnosis.software import check_software


@pytest.fixture(scope="module")
def cfg(tiny_mae: list[str]) -> DictConfig:
    return compose(tiny_mae)


def errors(findings) -> list[str]:
    return [f"{one.what}: {one.found}" for one in findings if one.level == "error"]


def changed(cfg: DictConfig, **values: object) -> DictConfig:
    copy = cfg.copy()
    for path, value in values.items():
        node, _, key = path.partition("__")
        copy[node][key] = value
    return copy


@pytest.fixture
def no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)


def test_versions_are_named(cfg: DictConfig) -> None:
    found = {one.what: one.found for one in check_software(cfg)}
    assert found["torch"].startswith(torch.__version__.partition("+")[0])


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
def test_a_machine_without_gpu_trains_on_the_cpu_unless_told_otherwise(cfg: DictConfig) -> None:
    if gpus.driver_version() is None:
        assert errors(check_gpus(cfg)) == []
        assert errors(check_gpus(changed(cfg, trainer__accelerator="gpu")))


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
def test_a_driver_that_torch_cannot_use_is_an_error(cfg: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "driver_version", lambda: "1.0")
    assert "can't use the driver 1.0" in errors(check_gpus(cfg))[0]


@pytest.mark.usefixtures("no_job")
def test_outside_a_job_there_is_nothing_to_say(cfg: DictConfig) -> None:
    assert list(check_slurm(cfg)) == [Finding("SLURM", "not inside a job")]


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"SLURM_NNODES": "1", "SLURM_NTASKS_PER_NODE": "1"}, []),
        ({"SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "1"}, ["is 2, but trainer.num_nodes is 1"]),
        ({"SLURM_NNODES": "1", "SLURM_NTASKS_PER_NODE": "4"}, ["is 4, but trainer.devices is 1"]),
        ({"SLURM_NTASKS": "2"}, ["ask for tasks with --ntasks-per-node"]),
    ],
)
def test_a_job_that_contradicts_the_trainer_is_an_error(
    cfg: DictConfig, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: list[str]
) -> None:
    for name in ("SLURM_NNODES", "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_JOB_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"SLURM_JOB_ID": "1", **variables}.items():
        monkeypatch.setenv(name, value)
    found = errors(check_slurm(cfg))
    assert len(found) == len(said)
    assert all(words in line for words, line in zip(said, found, strict=True))


def test_a_name_without_address_matters_to_several_machines(
    cfg: DictConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(host: str) -> str:
        raise socket.gaierror

    monkeypatch.setattr(network.socket, "gethostbyname", unknown)
    monkeypatch.setenv("MASTER_ADDR", "nowhere")
    assert errors(check_network(cfg)) == []
    assert "MASTER_ADDR: nowhere has no address" in errors(check_network(changed(cfg, trainer__num_nodes=2)))


def test_data_are_opened_and_read(cfg: DictConfig) -> None:
    found = {one.what: one for one in check_data(cfg)}
    assert "samples/s in one process, 0 unreadable" in found["loading"].found
    assert not errors(found.values())


def test_missing_data_are_an_error() -> None:
    lost = compose(["experiment=mae", "data=folder", "data.root=NOWHERE", "data.image_size=32"])
    assert "NOWHERE" in errors(check_data(lost))[0]


def test_disk_is_compared_with_what_checkpoints_need(
    cfg: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = cfg.copy()
    here.run_dir = str(tmp_path / "not" / "there")
    assert errors(check_disk(here)) == []
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    assert "0.0 GB free" in errors(check_disk(here))[0]


def test_an_online_run_needs_a_login(monkeypatch: pytest.MonkeyPatch) -> None:
    from maskpre.diagnosis import logins

    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(logins.wandb, "api", type("Api", (), {"api_key": None})())
    auto = compose(["experiment=mae", "logger=wandb"])
    online = compose(["experiment=mae", "logger=wandb", "logger.wandb.mode=online"])
    assert errors(check_logins(auto)) == []
    assert "no login" in errors(check_logins(online))[0]


def test_a_check_that_breaks_is_a_finding(cfg: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def check_luck(cfg: DictConfig):
        raise OSError("out of luck")

    monkeypatch.setattr(doctor, "CHECKS", (check_luck,))
    assert errors(doctor.examine(cfg)) == ["luck: OSError: out of luck"]


def test_the_command_fails_if_the_run_would(
    tiny_mae: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["doctor", *tiny_mae, "trainer.num_nodes=2"])
    monkeypatch.setattr(doctor, "CHECKS", (check_slurm,))
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_NNODES", "1")
    with pytest.raises(SystemExit) as stopped:
        doctor.main()
    assert stopped.value.code == 1
    assert "is 1, but trainer.num_nodes is 2" in capsys.readouterr().out
