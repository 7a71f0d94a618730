"""The splits of one data set, opened when they are first needed."""

import logging
from abc import ABC, abstractmethod
from typing import Literal

from lightning.pytorch import LightningDataModule

from maskpre.data.sources import Source
from maskpre.errors import UserError

log = logging.getLogger(__name__)

Split = Literal["train", "val"]


class SplitData(LightningDataModule, ABC):
    """Where the samples of each split are, and what is known of them; a subclass says the former."""

    def __init__(self) -> None:
        super().__init__()
        self._sources: dict[Split, Source | None] = {}

    @abstractmethod
    def make_source(self, split: Split) -> Source | None:
        """The samples of `split`, or None if the data set has no such split; raises UserError."""

    def prepare_data(self) -> None:
        """Called on one rank per machine while the others wait: write demo data, build indices."""
        self.source("train")

    def source(self, split: Split) -> Source:
        """The samples of `split`, opened at the first call; UserError if the data set lacks the split."""
        source = self._open(split)
        if source is None:
            raise UserError(f"the data set has no '{split}' split; see the keys of its data config")
        return source

    def has_split(self, split: Split) -> bool:
        """Whether the data set has `split`."""
        return self._open(split) is not None

    def _open(self, split: Split) -> Source | None:
        if split not in self._sources:
            source = self.make_source(split)
            if source is not None:
                log.info("%s: %s", split, source.describe())
            self._sources[split] = source
        return self._sources[split]

    @property
    def num_classes(self) -> int:
        """Classes of the training split, 0 if it is unlabelled."""
        return len(self.source("train").classes)

    @property
    def has_labels(self) -> bool:
        """Whether a probe can be fitted on the training split and scored on the val split."""
        return self.num_classes > 0 and self.has_split("val")

    @property
    def num_train(self) -> int | None:
        """Samples of the training split; None if the stream has no known end."""
        return len(self.source("train"))
