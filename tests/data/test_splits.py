from dataclasses import dataclass

import pytest

from maskpre.data.splits import SplitData
from maskpre.errors import UserError


@dataclass
class FakeSource:
    classes: tuple[str, ...]
    num_samples: int = 5

    def __len__(self):
        return self.num_samples

    def describe(self):
        return "samples"


class GivenSplits(SplitData):
    def __init__(self, **sources):
        super().__init__()
        self.sources, self.opened = sources, []

    def make_source(self, split):
        self.opened.append(split)
        return self.sources.get(split)


def test_splits_are_opened_once_and_when_they_are_needed():
    data = GivenSplits(train=FakeSource(("a", "b")), val=FakeSource(("a", "b")))
    assert data.opened == []
    data.prepare_data()
    assert data.source("train") is data.source("train")
    assert (data.num_classes, data.num_train) == (2, 5)
    assert data.opened == ["train"]
    assert data.has_labels
    assert data.opened == ["train", "val"]


def test_a_missing_split_is_named_and_looked_for_once():
    data = GivenSplits(train=FakeSource(("a", "b")))
    for _ in range(2):
        assert not data.has_split("val")
    assert not data.has_labels
    with pytest.raises(UserError, match="the data set has no 'val' split"):
        data.source("val")
    assert sorted(data.opened) == ["train", "val"]


def test_labels_need_classes():
    data = GivenSplits(train=FakeSource(()), val=FakeSource(()))
    assert data.num_classes == 0
    assert not data.has_labels
