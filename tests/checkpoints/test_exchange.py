"""One name, files and folders: whichever was complete last is there."""

from pathlib import Path

import pytest

from maskpre.checkpoints.exchange import exchange, fresh_folder, recover, remove


def make(path: Path, kind: str, content: str) -> Path:
    if kind == "folder":
        fresh_folder(path)
        (path / "data").write_text(content)
    elif kind == "file":
        path.write_text(content)
    return path


def read(path: Path) -> str:
    return (path / "data" if path.is_dir() else path).read_text()


@pytest.mark.parametrize("new", ["file", "folder"])
@pytest.mark.parametrize("old", ["nothing", "file", "folder"])
def test_the_new_takes_the_place_of_the_old(tmp_path: Path, old: str, new: str) -> None:
    path = make(tmp_path / "last.ckpt", old, "old")
    exchange(make(tmp_path / "beside", new, "new"), path)
    assert read(path) == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_death_between_the_two_renames_brings_the_old_one_back(tmp_path: Path) -> None:
    path = make(tmp_path / "last.ckpt", "folder", "old")
    path.rename(tmp_path / ".last.ckpt.old")
    recover(path)
    assert read(path) == "old"
    recover(path)
    remove(path)
    recover(path)
    assert not path.exists()
