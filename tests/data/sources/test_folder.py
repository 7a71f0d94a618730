from pathlib import Path

import pytest

from maskpre.data.sources import BadSampleError, FolderSource
from maskpre.errors import UserError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def test_finds_pictures_at_any_depth_sorted_and_labelled(pictures):
    source = FolderSource(root=pictures)
    keys = [source.key(index) for index in range(len(source))]
    assert keys == sorted(keys)
    assert len(keys) == 60
    assert source.classes == ("a", "b", "c")
    assert all(source.classes[label] in key for label, key in zip(source.labels, keys, strict=True))
    assert source.read(3).data.tobytes() == Path(keys[3]).read_bytes()
    assert source.describe() == f"folder {pictures}: 60 pictures, 3 classes"


def test_leaves_out_other_files_and_hidden_ones(tmp_path):
    touch(tmp_path, "a/1.JPG", "a/._1.jpg", "a/notes.txt", "b/2.Png")
    source = FolderSource(root=tmp_path)
    assert [source.key(index) for index in range(len(source))] == [
        f"{tmp_path}/a/1.JPG",
        f"{tmp_path}/b/2.Png",
    ]


def test_names_that_are_no_text_survive(tmp_path):
    name = b"a/\xff\xfe.jpg".decode("utf-8", "surrogateescape")
    touch(tmp_path, name)
    assert FolderSource(root=tmp_path).read(0).data.tobytes() == b"x"


def test_loose_pictures_make_auto_unlabelled_and_folders_an_error(tmp_path):
    touch(tmp_path, "a/1.jpg", "2.jpg")
    source = FolderSource(root=tmp_path)
    assert source.classes == ()
    assert source.labels.tolist() == [-1, -1]
    with pytest.raises(UserError, match=r"but 1 of 2 pictures lie in no such folder, e.g. '2.jpg'"):
        FolderSource(root=tmp_path, labels="folders")
    with pytest.raises(UserError, match="2 of 2 samples have no label: folder"):
        source.require_labels()


def test_labels_can_be_ignored(pictures):
    assert set(FolderSource(root=pictures, labels="none").labels.tolist()) == {-1}


def test_classes_of_another_split_are_kept(tmp_path):
    touch(tmp_path, "b/1.jpg", "c/2.jpg")
    assert FolderSource(root=tmp_path, classes=("a", "b", "c")).labels.tolist() == [1, 2]
    with pytest.raises(UserError, match=r"has 1 class folders that the training data lack: c"):
        FolderSource(root=tmp_path, classes=("a", "b"))


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(UserError, match=r"the folder '.*/nowhere' does not exist"):
        FolderSource(root=tmp_path / "nowhere")
    touch(tmp_path, "readme.txt")
    with pytest.raises(UserError, match=r"holds no picture \(.jpg, .*\); it holds 1 other files"):
        FolderSource(root=tmp_path)


def test_unreadable_samples_say_why(tmp_path):
    source = FolderSource(root=touch(tmp_path, "1.jpg", "2.jpg"))
    (tmp_path / "1.jpg").unlink()
    (tmp_path / "2.jpg").write_bytes(b"")
    with pytest.raises(BadSampleError, match="can't be read: No such file"):
        source.read(0)
    with pytest.raises(BadSampleError, match=r"is empty \(0 bytes\)"):
        source.read(1)
