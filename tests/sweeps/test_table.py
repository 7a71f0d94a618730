"""What the runs of a sweep are seen to differ in, and what is told of them."""

import csv
import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from maskpre.errors import UserError
from maskpre.run_folder import RunFolder
from maskpre.sweep import main
from maskpre.sweeps.columns import differences
from maskpre.sweeps.record import find_runs, read_run

CONFIG = {
    "seed": 0,
    "run_dir": None,
    "data": {"seed": 0, "batch_size": 16},
    "masking": {"_target_": "Random", "ratio": 0.75},
    "maskings": {"main": {"_target_": "Random", "ratio": 0.75}},
    "max_steps": None,
}


def make_run(path: Path, *overrides: str, changes: dict[str, object] | None = None) -> RunFolder:
    folder = RunFolder(path)
    folder.checkpoints.mkdir(parents=True)
    config = OmegaConf.create(CONFIG)
    for key, value in (changes or {}).items():
        OmegaConf.update(config, key, value)
    folder.config.write_text(OmegaConf.to_yaml(config))
    folder.overrides.write_text("".join(f"{line}\n" for line in overrides))
    lines = [f"{step},{1 / step},{100 + step},{'' if step % 2 else 0.5}" for step in (1, 2, 3)]
    header = "step,train/loss,time/images_per_second,probe/knn"
    (folder.path / "metrics.csv").write_text("\n".join([header, *lines, ""]))
    return folder


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two experiments times two seeds, as a command line would leave them."""
    for experiment, target in (("mae", "Random"), ("colormae", "Color")):
        for seed in (0, 1):
            chosen = [f"experiment={experiment}", f"++seed={seed}", f"runs_dir={tmp_path}"]
            parts = {"masking._target_": target, "maskings.main._target_": target}
            changes = {"seed": seed, "data.seed": seed, **parts}
            make_run(tmp_path / experiment / f"s{seed}", *chosen, changes=changes)
    return tmp_path


def records(path: Path) -> list:
    return [read_run(folder, patience=60) for folder in find_runs([path])]


def test_columns_are_what_was_swept(sweep: Path) -> None:
    assert differences(records(sweep)) == {
        "experiment": ("colormae", "colormae", "mae", "mae"),
        "seed": ("0", "1", "0", "1"),
    }


def test_what_no_override_explains_is_a_column_too(sweep: Path) -> None:
    changes: dict[str, object] = {"masking.ratio": 0.6, "data.batch_size": 32}
    make_run(sweep / "mae" / "s2", "experiment=mae", "seed=0", changes=changes)
    columns = differences(records(sweep))
    assert list(columns) == ["experiment", "seed", "data.batch_size", "masking.ratio"]
    assert columns["data.batch_size"] == ("16", "16", "16", "16", "32")


def test_without_overrides_the_configuration_speaks(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", changes={"masking.ratio": 0.6, "maskings.main.ratio": 0.6, "max_steps": 5})
    assert differences(records(tmp_path)) == {"max_steps": ("null", "5"), "masking.ratio": ("0.75", "0.6")}


def test_the_table_tells_how_far_runs_are(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunFolder(sweep / "mae/s0").write_status("finished", total_steps=3)
    RunFolder(sweep / "mae/s1").write_status("failed", message="the disk is full")
    RunFolder(sweep / "colormae/s0").write_status("requeued", total_steps=6)
    with RunFolder(sweep / "colormae/s1").held():
        assert main([str(sweep), "--csv", str(sweep / "t.csv"), "--markdown", str(sweep / "t.md")]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith((sweep / "t.md").read_text())
    assert "mae/s1 (failed): the disk is full" in printed
    with (sweep / "t.csv").open(newline="") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    states = {name: (row["status"], row["step"]) for name, row in rows.items()}
    assert states == {
        "colormae/s0": ("requeued", "3/6"),
        "colormae/s1": ("running", "3"),
        "mae/s0": ("finished", "3/3"),
        "mae/s1": ("failed", "3"),
    }
    assert rows["mae/s0"]["loss"] == "0.3333"
    assert rows["mae/s0"]["probe/knn"] == "0.5000"
    assert rows["mae/s0"]["images/s"] == "102"


def test_runs_that_died_or_hang_are_stalled(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    folder.write_status("running")
    record = read_run(folder, patience=60)
    assert (record.verdict, record.message[:20]) == ("stalled", "its process is gone ")
    with folder.held():
        assert read_run(folder, patience=60).verdict == "running"
        for file in folder.path.iterdir():
            os.utime(file, (1e9, 1e9))
        record = read_run(folder, patience=60)
    assert record.verdict == "stalled"
    assert record.message.startswith("has written nothing for ")


def test_how_a_run_ends_is_written_down(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")

    def ends(error: BaseException | None) -> tuple[str, str]:
        with suppress(BaseException), folder.held():
            if error is not None:
                raise error
        assert folder.status is not None
        return folder.status.state, folder.status.message

    assert ends(None) == ("finished", "")
    assert ends(UserError("no data")) == ("failed", "no data")
    assert ends(KeyError("bug")) == ("failed", "KeyError: 'bug'")
    assert ends(KeyboardInterrupt()) == ("stopped", "")


def test_a_log_that_is_being_written_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    with (folder.path / "metrics.csv").open("a") as file:
        file.write("4,0.2")
    assert read_run(folder, patience=60).step == 3
    (folder.path / "metrics.csv").unlink()
    assert read_run(folder, patience=60).last("train/loss") is None


def test_losses_are_drawn(sweep: Path) -> None:
    pytest.importorskip("matplotlib", reason="draws with matplotlib, which is not installed")
    assert main([str(sweep), "--plot", str(sweep / "loss.png")]) == 0
    assert (sweep / "loss.png").stat().st_size > 5000


@pytest.fixture
def without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)


@pytest.mark.usefixtures("without_matplotlib")
def test_a_plot_without_matplotlib_says_what_to_install(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(sweep), "--plot", str(sweep / "loss.png")]) == 1
    assert "pip install 'maskpre[plot]'" in capsys.readouterr().err


def test_where_no_run_is_that_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 1
    assert f"no run has been started in {tmp_path}" in capsys.readouterr().err
    assert main([str(tmp_path / "none")]) == 1
    assert f"there is no folder {tmp_path}/none" in capsys.readouterr().err
