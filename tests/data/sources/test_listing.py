import pytest

from maskpre.data.sources import VIDEOS, BadSampleError, ListSource
from maskpre.errors import UserError


def listed(tmp_path, text, **settings):
    (tmp_path / "list.csv").write_text(text, encoding="utf-8")
    return ListSource(files=tmp_path / "list.csv", root=tmp_path, media=VIDEOS, **settings)


def test_paths_with_class_numbers(tmp_path):
    source = listed(tmp_path, "deep/a, b.mp4,2\n\n/elsewhere/c.mp4, 0\n")
    assert [source.key(0), source.key(1)] == [f"{tmp_path}/deep/a, b.mp4", "/elsewhere/c.mp4"]
    assert source.labels.tolist() == [2, 0]
    assert source.classes == ("0", "1", "2")
    assert source.describe() == f"list {tmp_path}/list.csv: 2 videos, 3 classes"


def test_paths_alone(tmp_path):
    source = listed(tmp_path, "a.mp4\nb,c.mp4\n")
    assert source.key(1) == f"{tmp_path}/b,c.mp4"
    assert source.labels.tolist() == [-1, -1]
    assert source.classes == ()


def test_another_separator(tmp_path):
    source = listed(tmp_path, "a.mp4 3\nb.mp4 1\n", separator=" ")
    assert source.labels.tolist() == [3, 1]


@pytest.mark.parametrize(
    ("text", "separator", "paths", "labels"),
    [
        ("a.mp4,-1\nb.mp4,2\n", ",", ["a.mp4", "b.mp4"], [-1, 2]),
        ("deep/a 1.mp4 0 -1\nb.mp4 0 -1\n", " ", ["deep/a 1.mp4", "b.mp4"], [-1, -1]),
        ("a.mp4 7\nb.mp4 0 -1\n", " ", ["a.mp4", "b.mp4"], [7, -1]),
    ],
)
def test_files_without_a_class(tmp_path, text, separator, paths, labels):
    source = listed(tmp_path, text, separator=separator)
    assert [source.key(0), source.key(1)] == [f"{tmp_path}/{path}" for path in paths]
    assert source.labels.tolist() == labels
    assert len(source.classes) == max(labels) + 1


def test_a_byte_order_mark_belongs_to_no_path(tmp_path):
    assert listed(tmp_path, "\ufeffa.mp4,1\n").key(0) == f"{tmp_path}/a.mp4"


def test_contents_and_missing_files(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"abc")
    source = listed(tmp_path, "a.mp4\nb.mp4\n")
    assert source.read(0).data.tobytes() == b"abc"
    with pytest.raises(BadSampleError, match="can't be read: No such file"):
        source.read(1)


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("\n \n", {}, r"the list '.*list.csv' names no video"),
        ("a.mp4,0\nb.mp4,dog\n", {}, r"line 2 of '.*list.csv': 'dog' after ',' is no class number"),
        ("a.mp4,²\n", {}, r"line 1 of '.*list.csv': '²' after ',' is no class number"),
        ("a.mp4,-2\n", {}, r"line 1 of '.*list.csv': '-2' after ',' is no class number"),
        ("a.mp4,9223372036854775808\n", {}, r"line 1 of '.*list.csv': class number 9223372036854775808 is"),
        ("a.mp4,16777216\n", {}, r"line 1 of '.*list.csv': class number 16777216 is larger than 16777215"),
        (
            "a.mp4 0 300\n",
            {"separator": " "},
            r"line 1 of '.*list.csv': 'a.mp4 0 300' names a part of a file",
        ),
        ("a.mp4,1\n", {"separator": ""}, r"separator of the list '.*list.csv' must be .*, got ''"),
        ("a.mp4,4\n", {"classes": ("x", "y")}, r"'.*list.csv' has label 4, but there are 2 classes"),
    ],
)
def test_mistakes_are_named(tmp_path, text, settings, message):
    with pytest.raises(UserError, match=message):
        listed(tmp_path, text, **settings)


def test_a_missing_list(tmp_path):
    with pytest.raises(UserError, match=r"the list '.*none.csv' does not exist"):
        ListSource(files=tmp_path / "none.csv", root=tmp_path)
