"""Rows from disk that come with the samples of a batch."""

from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset

from maskpre.data.dataset import Batch, Loaded
from maskpre.data.order import Request
from maskpre.data.records import MissingRowError, RowReader


@dataclass(frozen=True)
class CropRows:
    """A row for each of `num_crops` crops of every sample: all of crop 0 first, in the source's order."""

    reader: RowReader
    num_samples: int
    num_crops: int

    def rows_of(self, batch: Batch) -> Int[Tensor, "b"]:
        """The rows of a batch's crops."""
        return batch["epoch"] % self.num_crops * self.num_samples + batch["index"]


class WithRows(Dataset[Loaded]):
    """A data set's batches with the columns of their crops' rows as further entries."""

    def __init__(self, dataset: Dataset[Loaded], rows: CropRows) -> None:
        self.dataset, self.rows = dataset, rows

    def __getitem__(self, request: Request) -> Loaded:
        """The batch of one request; it fails if a row was never written."""
        loaded = self.dataset[request]
        if loaded.batch is None:
            return loaded
        try:
            beside = self.rows.reader.read(self.rows.rows_of(loaded.batch))
        except MissingRowError as error:
            reason = "its sample could not be read when the others were made; remove the folder"
            return Loaded(None, loaded.bad, f"{self.rows.reader.table.folder}: {error}: {reason}")
        return loaded._replace(batch={**loaded.batch, **beside})
