"""What frozen teachers make of every crop, computed once and kept on disk."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch.nn.functional import cosine_similarity

from maskpre.data.beside import CropRows
from maskpre.data.dataset import Batch
from maskpre.data.files import only_one, write_json
from maskpre.data.picture_data import PictureData
from maskpre.data.progress import progress
from maskpre.data.records import Precision, RowReader, Table, size_in_words
from maskpre.data.rendered import cache_folder
from maskpre.errors import UserError
from maskpre.model import MaskedModel
from maskpre.run_folder import is_first_rank
from maskpre.teachers.recorder import Recorder, identity

LEAST_COSINE = 0.999
_CHECKED_SAMPLES = 4


@dataclass(frozen=True, kw_only=True)
class TeacherCache:
    """Keeps what a run reads of its frozen teachers for each of `data.crops_per_sample` crops per sample.

    It lies below `folder` (None: `default_cache_dir`) under a name that depends on the teachers' weights and
    settings, on the pictures and how they are cropped, and on `precision`; attention is always kept in
    float32. What is there is used; what is missing is computed first, `batch_size` crops at a time.
    """

    folder: str | None = None
    precision: Precision = "fp16"
    batch_size: int = 256

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")

    def open(self, cfg: DictConfig, model: MaskedModel, data: PictureData, device: torch.device) -> CropRows:
        """The rows of all crops, complete, and compared with what the teachers say of a few.

        Raises UserError if the disk has no room for them, `precision` can't hold a value, or they differ.
        """
        content = {**identity(cfg, model, data), "precision": self.precision}
        folder = self._folder(json.dumps(content, sort_keys=True))
        recorder = Recorder(model, data, device)
        samples, crops = len(data.source("train")), data.crops_per_sample or 1
        table = Table(folder, recorder.columns(self.precision), samples * crops)
        rows = CropRows(RowReader(table), samples, crops)
        with only_one(folder / "build.lock", waiting=f"another process fills {folder}; waiting for it"):
            write_json(folder / "made_of.json", content)
            self._fill(rows, recorder)
        _compare(rows, recorder)
        return rows

    def _folder(self, content: str) -> Path:
        return (
            cache_folder(self.folder) / "features" / hashlib.sha256(content.encode()).hexdigest()[:16]
        ).absolute()

    def _fill(self, rows: CropRows, recorder: Recorder) -> None:
        """Compute the shards that are missing; each is written when it is whole."""
        table = rows.reader.table
        missing = table.missing()
        if missing or is_first_rank():
            print(_announce(rows, len(missing)), flush=True)
        for left_over in table.folder.glob(".rows-*.tmp"):
            left_over.unlink()
        total = sum(len(table.rows(shard)) for shard in missing)
        _check_room(table, total)
        with progress("teacher features", total=total) as advance:
            for shard in missing:
                made = table.new_shard(shard)
                for batch in self._batches(rows, table.rows(shard), recorder.data):
                    places = rows.rows_of(batch)
                    made.put(places, recorder.record(batch))
                    advance(len(places))
                made.write(table.path(shard))

    def _batches(self, rows: CropRows, wanted: range, data: PictureData) -> Iterator[Batch]:
        """The crops of some rows."""
        for crop in range(rows.num_crops):
            first = crop * rows.num_samples
            samples = range(max(wanted.start - first, 0), min(wanted.stop - first, rows.num_samples))
            if samples:
                yield from data.crop_loader(crop=crop, samples=samples, batch_size=self.batch_size)


def _announce(rows: CropRows, num_missing: int) -> str:
    table = rows.reader.table
    each, total = size_in_words(table.dtype.itemsize), size_in_words(table.num_bytes)
    there = f"{num_missing} of {table.num_shards} files to be made" if num_missing else "all there"
    return (
        f"teacher features: {rows.num_samples:,} samples x {rows.num_crops} crops x {each} = {total} in "
        f"{table.folder}, {there}"
    )


def _check_room(table: Table, num_rows: int) -> None:
    free, needed = shutil.disk_usage(table.folder).free, num_rows * table.dtype.itemsize
    if needed > free:
        raise UserError(
            f"teacher_cache needs {size_in_words(needed)} more in {table.folder}, {size_in_words(free)} are "
            "free; set teacher_cache.folder, a smaller data.crops_per_sample, or teacher_cache=none"
        )


def _compare(rows: CropRows, recorder: Recorder) -> None:
    """Raise UserError unless rows of a few samples point where the teachers' own results do."""
    number = min(_CHECKED_SAMPLES, rows.num_samples)
    samples = [rows.num_samples * one // number for one in range(number)]
    for crop in {0, rows.num_crops - 1}:
        batch = recorder.crops(crop, samples)
        live, kept = recorder.record(batch), rows.reader.read(rows.rows_of(batch))
        for name, value in live.items():
            cosine = cosine_similarity(value.float().cpu(), kept[name].float(), dim=-1).min().item()
            if not cosine >= LEAST_COSINE:
                raise UserError(
                    f"the features in {rows.reader.table.folder} are not the teacher's: {name} has a cosine "
                    f"of {cosine:.4f} with it, at least {LEAST_COSINE} is expected; if pictures were "
                    "exchanged, remove the folder"
                )
