"""Runs that come first: made once, found later, interrupted and resumed like any run."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from maskpre.checkpoints.read import read_torch
from maskpre.config import compose
from maskpre.errors import ConfigError, UserError
from maskpre.run_stage import train_stage
from maskpre.stages import Stage, make_stages
from maskpre.train import run

SMALL = [
    "encoder.embed_dim=16",
    "encoder.depth=1",
    "encoder.num_heads=2",
    "predictor.embed_dim=8",
    "predictor.depth=1",
    "predictor.num_heads=2",
    "optim.schedule.warmup_epochs=0",
    "callbacks.probe=null",
    "callbacks.best=null",
    "callbacks.pictures=null",
    "trainer.log_every_n_steps=1",
]
LATER = ["experiment=mae", *SMALL, "max_steps=2", "data.num_train=32", "data.num_val=8", "data.batch_size=8"]
PATIENCE = 600
DATA = ["data.image_size=16", "data.num_workers=0"]


def stage_text(cache: Path, *overrides: str, experiment: str = "mae") -> str:
    """An override that starts a run from a stage on the run's own pictures."""
    listed = ",".join(f"'{line}'" for line in [*SMALL, *overrides])
    return (
        "init_from={_target_: maskpre.stages.Stage, _recursive_: false, "
        f"experiment: {experiment}, overrides: [{listed}], "
        f"settings: {{data: '${{data}}'}}, cache_dir: {cache}}}"
    )


@pytest.fixture
def later(demo_cache: Path, tmp_path: Path) -> list[str]:
    """A run of seconds that starts from another."""
    return [*LATER, *DATA, f"data.cache_dir={demo_cache}", f"runs_dir={tmp_path / 'runs'}"]


def stage_of(cfg: DictConfig) -> Stage:
    return instantiate(cfg.init_from)


def start(module: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for_step(folder: Path, process: subprocess.Popen[str], step: int) -> None:
    deadline = time.monotonic() + PATIENCE
    log = folder / "metrics.csv"
    while not (log.exists() and len(log.read_text().splitlines()) > step):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the stage made no progress"
        time.sleep(0.02)


def test_a_run_trains_its_stage_once_and_starts_from_it(
    later: list[str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where a launcher has started several ranks: the first trains the stage alone."""
    cfg = compose([*later, stage_text(tmp_path, "max_steps=3")])
    stage = stage_of(cfg)
    assert not stage.is_made
    with monkeypatch.context() as ranks:
        for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_PORT": "1"}.items():
            ranks.setenv(name, value)
        make_stages(cfg)
    assert run(cfg) is None
    assert stage.is_made
    content = read_torch(stage.folder.last)
    assert content["global_step"] == 3
    assert content["config"]["data"]["num_train"] == 32
    first = capfd.readouterr().out
    assert "comes first" in first
    assert "step 3/3" in first
    assert "found in" in first
    changed = stage.folder.last.stat().st_mtime_ns
    make_stages(cfg)
    assert stage.folder.last.stat().st_mtime_ns == changed
    assert stage.open().encoder().keys() == {
        name.removeprefix("encoder.") for name in content["state_dict"] if name.startswith("encoder.")
    }


def test_its_folder_depends_on_all_that_changes_what_is_learnt(later: list[str], tmp_path: Path) -> None:
    def name(run: list[str], *overrides: str) -> str:
        return stage_of(compose([*later, *run, stage_text(tmp_path, *overrides)])).folder.path.name

    plain = name([], "max_steps=3")
    assert plain.startswith("mae-")
    assert name([], "max_steps=3", "name=other", "runs_dir=elsewhere") == plain
    assert name(["epochs=2", "data.num_workers=3"], "max_steps=3") == plain
    others = [
        name([], "max_steps=4"),
        name([], "max_steps=3", "seed=1"),
        name(["data.num_train=40"], "max_steps=3"),
    ]
    assert len({plain, *others}) == 4


def test_before_it_is_made_its_shapes_are_known(later: list[str], tmp_path: Path) -> None:
    stage = stage_of(compose([*later, stage_text(tmp_path)]))
    source = stage.open()
    assert source.kind == "not trained yet"
    assert all(value.is_meta for value in source.encoder().values())
    assert source.encoder()["pos_embed"].shape == (1, 5, 16)
    assert not stage.folder.path.exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["encoder.depht=2"], r"init_from: 1 mistake in the configuration:\n  encoder.depht: .*'depth'"),
        (["encoder.depth=0"], r"init_from: the stage mae-\w+ \(not trained yet\) lacks 12 tensors"),
        (["encoder.embed_dim=32"], "init_from: encoder.pos_embed has 32 columns, the model's has 16"),
        (["epochs=0"], "epochs: must be greater than 0, got 0"),
    ],
)
def test_what_is_wrong_with_it_is_told_before_anything_starts(
    later: list[str], tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        compose([*later, stage_text(tmp_path, *overrides)])
    assert list(tmp_path.glob("stages/*")) == []


def test_what_is_wrong_with_the_run_is_told_before_its_stage_is_trained(
    later: list[str], tmp_path: Path
) -> None:
    """Only the pictures tell that two steps are less than the warm-up."""
    cfg = compose([*later, "optim.schedule.warmup_epochs=3", stage_text(tmp_path)])
    with pytest.raises(UserError, match="warm"):
        run(cfg)
    assert not stage_of(cfg).folder.path.exists()


def test_its_values_keep_their_types(tmp_path: Path) -> None:
    """A teacher that leaves the choice of a size to timm leaves it to the stage, too."""
    cfg = compose(
        [
            "experiment=mrmae",
            "teacher.name=vit_tiny_patch16_224",
            "teacher.depth=null",
            "encoder.patch_size=8",
        ]
    )
    config = instantiate(cfg.teacher.weights).config
    assert config.encoder.depth is None
    assert (config.encoder.embed_dim, config.epochs) == (128, 4)
    with pytest.raises(ConfigError, match=r"encoder\.dpeth"):
        Stage(experiment="mae", values={"encoder": {"dpeth": 1}}, cache_dir=str(tmp_path))


def test_a_stage_that_needs_itself_is_refused(tmp_path: Path) -> None:
    inner = "init_from={_target_: maskpre.stages.Stage, _recursive_: false, experiment: mae}"
    stage = {"_target_": "maskpre.stages.Stage", "_recursive_": False, "experiment": "mae"}
    nested: dict = {**stage, "settings": {"init_from": stage}}
    with pytest.raises(ConfigError, match="stages need each other in a circle: mae -> mae"):
        compose([f"init_from={OmegaConf.create(nested)}".replace("'", "")])
    assert compose([inner]).init_from.experiment == "mae"


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_an_interrupted_stage_goes_on_where_it_stopped(
    later: list[str], tmp_path: Path, number: signal.Signals
) -> None:
    overrides = [*later, stage_text(tmp_path, "max_steps=200", "callbacks.save.every_steps=1")]
    folder = stage_of(compose(overrides)).folder
    process = start("maskpre.train", *overrides)
    wait_for_step(folder.path, process, 3)
    process.send_signal(number)
    output, _ = process.communicate(timeout=PATIENCE)
    if number == signal.SIGTERM:
        assert process.returncode == 128 + number, output
        assert "the same command goes on from there" in output
    # Waits for the process that a killed run leaves behind, which saves and stops.
    assert train_stage(folder.path) == 0
    rows = (folder.path / "metrics.csv").read_text().splitlines()
    assert len(rows) == 201
    assert rows[-1].startswith("200,")
    assert stage_of(compose(overrides)).is_made


def test_two_that_start_at_once_make_it_once(later: list[str], tmp_path: Path) -> None:
    stage = stage_of(compose([*later, stage_text(tmp_path, "max_steps=5")]))
    stage.write_config()
    processes = [start("maskpre.run_stage", str(stage.folder.path)) for _ in range(2)]
    outputs = [process.communicate(timeout=PATIENCE)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sum(text.count("finished at step 5") for text in outputs) == 1


def test_other_ranks_wait_for_the_first(
    later: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = stage_of(compose([*later, stage_text(tmp_path)]))
    waited: list[float] = []

    def first_rank_finishes(seconds: float) -> None:
        waited.append(seconds)
        stage.folder.checkpoints.mkdir(parents=True, exist_ok=True)
        stage.folder.last.touch()
        (stage.folder.path / "made.json").touch()

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(time, "sleep", first_rank_finishes)
    stage.make()
    assert waited == [1.0]
