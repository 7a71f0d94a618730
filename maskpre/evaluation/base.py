"""What all probes on cached features share."""

from abc import ABC, abstractmethod

from maskpre.evaluation.features import Features, Pool
from maskpre.evaluation.result import ProbeResult


class Probe(ABC):
    """Judges frozen features: fitted on the training features, scored on the test features.

    `pool` says which features it reads (see `maskpre.evaluation.features.pooled`).
    """

    pool: Pool

    @abstractmethod
    def __call__(self, train: Features, test: Features) -> ProbeResult:
        """Accuracy on `test` of the probe fitted on `train`."""
