"""What a run measures, draws and averages on its way."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from maskpre.callbacks.best import KeepBest
from maskpre.callbacks.ema import WeightEMA
from maskpre.callbacks.online_probe import OnlineProbe
from maskpre.callbacks.pictures import Pictures
from maskpre.config import compose
from maskpre.run_folder import RunFolder, open_run_folder
from maskpre.summary import find_callback, print_summary
from maskpre.training import Training, build_training

PROBE = [
    "callbacks.probe={_target_: maskpre.callbacks.online_probe.OnlineProbe, _convert_: all, every_epochs: 1, "
    "max_train: 64, max_test: 40, probes: {knn: {_target_: maskpre.evaluation.KnnProbe, num_neighbors: 5}}}"
]


def fit(overrides: list[str], folder: Path) -> tuple[Training, RunFolder]:
    run = open_run_folder(compose([*overrides, f"run_dir={folder}"]))
    training = build_training(compose(overrides), run)
    training.trainer.fit(training.module, datamodule=training.data)
    return training, run


@pytest.fixture(scope="module")
def finished(tiny_mae: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Training, RunFolder]:
    tiny = [item for item in tiny_mae if not item.startswith("callbacks.probe")]
    return fit([*tiny, *PROBE, "callbacks.pictures.every_epochs=1"], tmp_path_factory.mktemp("run"))


def rows(run: RunFolder) -> list[dict[str, str]]:
    with (run.path / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_probes_run_before_every_epoch_and_at_the_end(finished: tuple[Training, RunFolder]) -> None:
    probed = [int(row["step"]) for row in rows(finished[1]) if row["probe/knn"]]
    assert probed == [0, 6, 12]


def test_every_logged_step_has_loss_rate_norm_speed_wait_and_samples(
    finished: tuple[Training, RunFolder],
) -> None:
    wanted = ["loss", "loss/main", "lr", "grad_norm"]
    for row in rows(finished[1])[1:]:
        assert all(np.isfinite(float(row[f"train/{name}"])) for name in wanted)
        assert float(row["time/images_per_second"]) > 0
        assert 0 <= float(row["time/data_wait"]) <= 1
        assert int(row["samples"]) == 16 * int(row["step"])


def test_pictures_show_three_columns_of_changing_reconstructions(
    finished: tuple[Training, RunFolder],
) -> None:
    files = sorted(finished[1].pictures.glob("*.png"))
    assert [file.stem for file in files] == ["step-00000006", "step-00000012"]
    first, last = (np.asarray(Image.open(file)) for file in files)
    assert first.shape == last.shape
    assert (first != last).any()


def test_the_summary_names_what_came_out_and_where(
    finished: tuple[Training, RunFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    training, run = finished
    print_summary(training, run)
    printed = capsys.readouterr().out
    assert "finished at step 12 of 12" in printed
    for part in ("images/s", "untrained", "knn", str(run.last), str(run.pictures)):
        assert part in printed


def test_probing_changes_nothing_in_training(
    finished: tuple[Training, RunFolder], tiny_mae: list[str], tmp_path: Path
) -> None:
    _, alone = fit(tiny_mae, tmp_path)
    assert [r["train/loss"] for r in rows(alone)] == [r["train/loss"] for r in rows(finished[1])][1:]


def test_an_average_follows_its_formula(tiny_mae: list[str], tmp_path: Path) -> None:
    ema = "callbacks.ema={_target_: maskpre.callbacks.ema.WeightEMA, decay: 0.5}"
    run = open_run_folder(compose([*tiny_mae, f"run_dir={tmp_path}"]))
    training = build_training(compose([*tiny_mae, ema, "max_steps=4"]), run)
    name = "encoder.blocks.0.mlp.fc1.weight"
    seen = [dict(training.module.model.named_parameters())[name].detach().clone()]

    class Watch(Pictures):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            if batch_idx:
                seen.append(dict(pl_module.model.named_parameters())[name].detach().clone())

    training.trainer.callbacks.append(Watch(folder=run))
    training.trainer.fit(training.module, datamodule=training.data)
    seen.append(dict(training.module.model.named_parameters())[name].detach().clone())
    expected = seen[0]
    for weight in seen[1:]:
        expected = 0.5 * expected + 0.5 * weight
    average = find_callback(training.trainer, WeightEMA)
    torch.testing.assert_close(average.average[name], expected)


def test_the_best_probed_checkpoints_are_kept(tiny_mae: list[str], tmp_path: Path) -> None:
    scores = iter([0.1, 0.5, 0.3, 0.5, 0.2])

    class Scripted(OnlineProbe):
        def _probe(self, trainer, pl_module) -> dict[str, float]:
            self.latest_step, self.latest = trainer.global_step, {"linear": next(scores)}
            return self.latest

    run = open_run_folder(compose([*tiny_mae, f"run_dir={tmp_path}"]))
    training = build_training(compose([*tiny_mae, "max_steps=18"]), run)
    keep = KeepBest(folder=run, top_k=2)
    others = [c for c in training.trainer.callbacks if not isinstance(c, KeepBest)]
    training.trainer.callbacks[:] = [*others, Scripted(probes={}, every_epochs=1), keep]
    training.trainer.fit(training.module, datamodule=training.data)
    assert keep.scores == {6: 0.5, 18: 0.5}
    files = sorted(path.name for path in run.checkpoints.glob("best-*.ckpt"))
    assert files == [f"best-{step:08}.ckpt" for step in sorted(keep.scores)]


def test_bad_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"EMA decay must be between 0 and 1, got 1\.5"):
        WeightEMA(decay=1.5)
    with pytest.raises(ValueError, match="top_k must be at least 1 checkpoint, got 0"):
        KeepBest(folder=RunFolder(tmp_path), top_k=0)
    with pytest.raises(ValueError, match="num must be at least 1 picture, got 0"):
        Pictures(folder=RunFolder(tmp_path), num=0)
    assert OnlineProbe(probes={}).every_epochs is None
