"""Rows come back as they were put in, from whole files only."""

import pickle
from pathlib import Path

import pytest
import torch

from maskpre.data import records
from maskpre.data.records import Column, MissingRowError, RowReader, Table, size_in_words
from maskpre.errors import UserError

COLUMNS = {"wide": Column((3, 2), "fp16"), "short": Column((4,), "bf16"), "exact": Column((), "fp32")}
NUM_ROWS = 10


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Table:
    """Ten rows in files of four."""
    made = Table(tmp_path, COLUMNS, NUM_ROWS)
    monkeypatch.setattr(records, "_SHARD_BYTES", 4 * made.dtype.itemsize + 1)
    return made


def values_of(rows: torch.Tensor) -> dict[str, torch.Tensor]:
    """Values that all three formats hold exactly."""
    return {
        name: (rows * 8.0 + place).view(-1, *[1] * len(one.shape)).expand(-1, *one.shape)
        for place, (name, one) in enumerate(COLUMNS.items())
    }


def fill(table: Table, leave_out: tuple[int, ...] = ()) -> None:
    for shard in table.missing():
        made = table.new_shard(shard)
        rows = torch.tensor([row for row in table.rows(shard) if row not in leave_out])
        made.put(rows, values_of(rows))
        made.write(table.path(shard))


def test_rows_of_several_files_in_any_order(table: Table) -> None:
    assert (table.num_shards, table.missing()) == (3, [0, 1, 2])
    fill(table)
    assert table.missing() == []
    assert sum(file.stat().st_size for file in table.folder.iterdir()) == table.num_bytes
    wanted = torch.tensor([9, 0, 5, 5, 3])
    read = pickle.loads(pickle.dumps(RowReader(table))).read(wanted)
    assert [read[name].dtype for name in COLUMNS] == [torch.float16, torch.bfloat16, torch.float32]
    for name, value in values_of(wanted).items():
        assert torch.equal(read[name].float(), value)


def test_only_missing_files_are_made(table: Table) -> None:
    fill(table)
    table.path(1).unlink()
    assert table.missing() == [1]
    assert list(table.rows(1)) == [4, 5, 6, 7]


def test_a_row_that_was_never_put_in_is_no_zeros(table: Table) -> None:
    fill(table, leave_out=(6,))
    reader = RowReader(table)
    assert reader.read(torch.tensor([5, 7]))["exact"].tolist() == [42.0, 58.0]
    with pytest.raises(MissingRowError, match="row 6 is empty"):
        reader.read(torch.tensor([5, 6]))


def test_a_value_beyond_the_format_is_refused(table: Table) -> None:
    values = {**values_of(torch.tensor([0])), "wide": torch.full((1, 3, 2), 1e6)}
    with pytest.raises(UserError, match="wide has values that fp16 can't hold; use bf16 or fp32"):
        table.new_shard(0).put(torch.tensor([0]), values)


def test_a_file_that_is_not_finished_is_not_there(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    made = table.new_shard(0)
    monkeypatch.setattr("os.fsync", lambda number: (_ for _ in ()).throw(OSError("disk is full")))
    with pytest.raises(OSError, match="full"):
        made.write(table.path(0))
    assert list(table.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (5 * 2**40, "5 TiB")]
)
def test_sizes_in_words(size: int, words: str) -> None:
    assert size_in_words(size) == words
