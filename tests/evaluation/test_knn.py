import math

import pytest
import torch

from maskpre.errors import UserError
from maskpre.evaluation import Features, KnnProbe


def brute_force(train, test, neighbors, temperature, num_classes):
    """Votes of one sample after the other, in plain Python."""
    hits = 0
    for query, label in zip(test.values, test.labels, strict=True):
        similar = [torch.cosine_similarity(query, row, dim=0).item() for row in train.values]
        nearest = sorted(range(len(similar)), key=similar.__getitem__, reverse=True)[:neighbors]
        votes = [0.0] * num_classes
        for i in nearest:
            votes[train.labels[i]] += math.exp(similar[i] / temperature)
        hits += votes.index(max(votes)) == label
    return hits / len(test)


@pytest.mark.parametrize("chunk", [7, 512])
def test_votes_as_a_brute_force(chunk):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (90,), generator=generator)
    values = torch.randn(4, 6, generator=generator)[labels] + torch.randn(90, 6, generator=generator)
    train, test = Features(values[:60], labels[:60]), Features(values[60:], labels[60:])
    result = KnnProbe(num_neighbors=9, temperature=0.2, chunk=chunk)(train, test)
    assert result.top1 == pytest.approx(brute_force(train, test, 9, 0.2, 4))
    assert 0.3 < result.top1 < 1.0
    assert result.top5 == 1.0


def test_closer_neighbors_outvote_more_numerous_ones():
    train = Features(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0]]), torch.tensor([0, 1, 1]))
    test = Features(torch.tensor([[1.0, 0.05]]), torch.tensor([0]))
    assert KnnProbe(num_neighbors=3, temperature=0.07)(train, test).top1 == 1.0
    assert KnnProbe(num_neighbors=3, temperature=100.0)(train, test).top1 == 0.0


def test_too_few_training_samples_are_named():
    few = Features(torch.ones(3, 2), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(UserError, match=r"num_neighbors \(20\) must be at most the training samples \(3\)"):
        KnnProbe()(few, few)
