import errno
from pathlib import Path

import pytest
import torch

from maskpre.checkpoints.lightning_io import AtomicCheckpointIO
from maskpre.checkpoints.save import atomic_save, tensor_bytes
from maskpre.errors import UserError


def _full(obj: object, file: object) -> None:
    file.write(b"half")
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_the_old_file_and_tells_the_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    atomic_save({"step": 1}, path)
    monkeypatch.setattr(torch, "save", _full)
    with pytest.raises(UserError, match=r"last\.ckpt can't be written: the disk is full .* 400 are needed"):
        atomic_save({"w": torch.zeros(100)}, path)
    monkeypatch.undo()
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
    assert torch.load(path) == {"step": 1}


def test_torch_hides_the_systems_error_behind_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(obj: object, file: object) -> None:
        try:
            _full(obj, file)
        except OSError as error:
            raise RuntimeError("unexpected pos 64 vs 0") from error

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(UserError, match="the disk is full"):
        atomic_save({}, tmp_path / "last.ckpt")
    assert list(tmp_path.iterdir()) == []


def test_other_errors_pass_and_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(AttributeError):
        atomic_save({"f": lambda: 0}, tmp_path / "last.ckpt")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cant_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/last\.ckpt can't be written"):
        atomic_save({}, tmp_path / "file" / "last.ckpt")


def test_shared_storages_count_once() -> None:
    weight = torch.zeros(10, dtype=torch.float64)
    assert tensor_bytes({"a": weight, "b": [weight[:5], (torch.zeros(3),)]}) == 80 + 12


def test_lightning_plugin_writes_and_reads(tmp_path: Path) -> None:
    plugin = AtomicCheckpointIO()
    plugin.save_checkpoint({"epoch": 3, "state_dict": {"w": torch.ones(2)}}, tmp_path / "a" / "b.ckpt")
    content = plugin.load_checkpoint(tmp_path / "a" / "b.ckpt")
    assert content["epoch"] == 3
    assert content["state_dict"]["w"].tolist() == [1, 1]
