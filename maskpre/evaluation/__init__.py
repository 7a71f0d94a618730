"""Judging encoders: nearest neighbours, linear and attentive probes, fine-tuning."""

from maskpre.evaluation.base import Probe
from maskpre.evaluation.cached import AttentiveProbe, LinearProbe
from maskpre.evaluation.features import Features, extract
from maskpre.evaluation.heads import AttentiveHead, build_probe_head
from maskpre.evaluation.knn import KnnProbe
from maskpre.evaluation.result import ProbeResult

__all__ = [
    "AttentiveHead",
    "AttentiveProbe",
    "Features",
    "KnnProbe",
    "LinearProbe",
    "Probe",
    "ProbeResult",
    "build_probe_head",
    "extract",
]
