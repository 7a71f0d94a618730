"""Weighted nearest-neighbour classification of frozen features."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional

from maskpre.errors import UserError
from maskpre.evaluation.base import Probe
from maskpre.evaluation.features import Features
from maskpre.evaluation.result import ProbeResult, count_hits


@dataclass(frozen=True, kw_only=True)
class KnnProbe(Probe):
    """Cosine nearest neighbours voting with weight exp(similarity / temperature), as in DINO.

    Wu et al., arXiv 1805.01978; DINO's settings (arXiv 2104.14294) are 20 neighbours at 0.07. `chunk` is the
    number of test samples compared at a time: it bounds memory and changes no result.
    """

    pool: Literal["cls", "avg"] = "avg"
    num_neighbors: int = 20
    temperature: float = 0.07
    chunk: int = 512

    def __call__(self, train: Features, test: Features) -> ProbeResult:
        """See `Probe`. Raises UserError if there are fewer training samples than neighbours."""
        if self.num_neighbors > len(train):
            raise UserError(
                f"num_neighbors ({self.num_neighbors}) must be at most the training samples ({len(train)})"
            )
        bank = functional.normalize(train.values, dim=1)
        queries = functional.normalize(test.values, dim=1)
        num_classes = max(train.num_classes, test.num_classes)
        hits = torch.zeros(2, dtype=torch.int64)
        for rows in torch.arange(len(test), device=queries.device).split(self.chunk):
            similar, neighbors = (queries[rows] @ bank.T).topk(self.num_neighbors, dim=1)
            votes = queries.new_zeros(len(rows), num_classes)
            votes.scatter_add_(1, train.labels[neighbors], (similar / self.temperature).exp())
            hits += torch.tensor(count_hits(votes, test.labels[rows]))
        top1, top5 = (hits.double() / len(test)).tolist()
        return ProbeResult(top1=top1, top5=top5)
