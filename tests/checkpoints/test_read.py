import argparse
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from maskpre.checkpoints.inert import Inert
from maskpre.checkpoints.read import read_safetensors, read_torch
from maskpre.errors import UserError


class Node(dict):
    """Like the configuration nodes in official checkpoints: a mapping with attributes."""

    def __init__(self, values: dict) -> None:
        super().__init__(values)
        self.__dict__["frozen"] = True


class Trap:
    """Runs code when it is unpickled by an ordinary unpickler."""

    def __reduce__(self) -> tuple:
        return print, ("executed",)


def test_foreign_objects_beside_the_weights_become_inert(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {
        "model": {"w": torch.arange(3.0)},
        "args": argparse.Namespace(lr=0.1),
        "config": Node({"DATA": Node({"SIZE": 192})}),
        "history": deque([1.0, 2.0]),
        "best": np.float64(83.6),
        "trap": Trap(),
        "epoch": 7,
    }
    torch.save(content, tmp_path / "official.pth")
    read = read_torch(tmp_path / "official.pth")
    assert read["model"]["w"].tolist() == [0, 1, 2]
    assert read["epoch"] == 7
    assert read["config"]["DATA"]["SIZE"] == 192
    assert all(isinstance(read[name], Inert) for name in ("args", "config", "history", "best", "trap"))
    assert capsys.readouterr().out == ""


def test_a_file_that_is_cut_off_is_named(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1000)}, tmp_path / "whole.ckpt")
    whole = (tmp_path / "whole.ckpt").read_bytes()
    (tmp_path / "half.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"half\.ckpt is no checkpoint: it is cut off or .* bytes\)"):
        read_torch(tmp_path / "half.ckpt")


def test_damage_in_the_middle_is_named(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1000)}, tmp_path / "a.ckpt")
    whole = bytearray((tmp_path / "a.ckpt").read_bytes())
    whole[60:160] = bytes(100)
    (tmp_path / "a.ckpt").write_bytes(whole)
    with pytest.raises(UserError, match=r"a\.ckpt can't be read as a checkpoint"):
        read_torch(tmp_path / "a.ckpt")


@pytest.mark.parametrize("read", [read_torch, read_safetensors])
def test_missing_files_folders_and_other_kinds(read: object, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no file .*gone"):
        read(tmp_path / "gone")
    with pytest.raises(UserError, match="is a folder, a file was expected"):
        read(tmp_path)
    (tmp_path / "text").write_text("hello, this is no checkpoint at all")
    with pytest.raises(UserError, match="text"):
        read(tmp_path / "text")


def test_safetensors(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "w.safetensors")
    assert read_safetensors(tmp_path / "w.safetensors")["w"].tolist() == [1, 1]
