import re
import sys
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from maskpre import export, visualize
from maskpre.build import build_model
from maskpre.checkpoints.save import atomic_save
from maskpre.config import compose

COLOURS = [(250, 10, 20), (10, 250, 20), (10, 20, 250)]


def _paint(folder: Path) -> None:
    folder.mkdir(parents=True)
    for number, colour in enumerate(COLOURS):
        Image.new("RGB", (90, 60), colour).save(folder / f"{number}.png")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pictures = tmp_path_factory.mktemp("data") / "train"
    _paint(pictures)
    encoder = ["encoder.embed_dim=24", "encoder.depth=1", "encoder.num_heads=3"]
    decoder = ["predictor.embed_dim=16", "predictor.depth=1", "predictor.num_heads=2"]
    data = ["data=folder", f"data.root={pictures}", "data.image_size=32"]
    config = compose(["experiment=mae", "epochs=800", *data, *encoder, *decoder])
    content = {
        "state_dict": build_model(config).state_dict(),
        "config": OmegaConf.to_container(config, resolve=True),
    }
    path = tmp_path_factory.mktemp("run") / "last.ckpt"
    atomic_save(content, path)
    return path


def _run(main: object, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> None:
    monkeypatch.setattr(sys, "argv", ["maskpre", *overrides])
    main()


def test_pictures_of_ones_own(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _paint(tmp_path / "mine" / "deep")
    out = tmp_path / "new" / "grid.png"
    _run(
        visualize.main,
        monkeypatch,
        f"checkpoint={checkpoint}",
        f"images={tmp_path / 'mine'}",
        f"out={out}",
        "num=2",
    )
    picture = np.asarray(Image.open(out))
    assert picture.shape[0] == 20 + 2 * (160 + 4)
    assert tuple(picture[30, 10]) == COLOURS[0]
    assert tuple(picture[200, 10]) == COLOURS[1]


def test_the_data_sets_own_pictures(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(visualize.main, monkeypatch, f"checkpoint={checkpoint}", f"out={tmp_path / 'grid.png'}", "num=3")
    assert Image.open(tmp_path / "grid.png").size == (3 * 160 + 16, 20 + 3 * 164)
    assert "on 3 samples" in capsys.readouterr().out


def test_a_file_that_is_no_picture_is_named(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.png").write_text("no picture")
    with pytest.raises(SystemExit) as stop:
        _run(visualize.main, monkeypatch, f"checkpoint={checkpoint}", f"images=[{tmp_path / 'bad.png'}]")
    assert stop.value.code == 1
    assert "bad.png is no picture of a known format" in capsys.readouterr().err


def test_export_command(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(export.main, monkeypatch, f"checkpoint={checkpoint}", f"out={tmp_path / 'out'}")
    said = re.search(r"largest difference of features after reading it back: (\S+)", capsys.readouterr().out)
    assert said is not None
    assert float(said[1].rstrip(",;")) < 1e-12
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"config.json", "model.safetensors"}
    with pytest.raises(SystemExit) as stop:
        _run(export.main, monkeypatch, f"checkpoint={checkpoint}", f"out={tmp_path / 'out'}")
    assert stop.value.code == 1
    assert "exists already" in capsys.readouterr().err


def test_unknown_formats_are_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        _run(export.main, monkeypatch, f"checkpoint={checkpoint}", f"out={tmp_path / 'out'}", "format=onnx")
    assert stop.value.code == 2
    assert "expected one of timm, full, mae, video, got 'onnx'" in capsys.readouterr().err
