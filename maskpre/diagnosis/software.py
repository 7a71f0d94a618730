"""Versions of what a run stands on."""

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from omegaconf import DictConfig

from maskpre.diagnosis.base import Finding

PACKAGES = ("maskpre", "torch", "torchvision", "timm", "lightning", "hydra-core", "triton")


def check_software(cfg: DictConfig) -> Iterator[Finding]:
    """Python and packages; kernels need Triton, without which torch's attention runs."""
    yield Finding("python", platform.python_version())
    for name in PACKAGES:
        try:
            yield Finding(name, version(name))
        except PackageNotFoundError:
            wanted = name == "triton" and cfg.attention == "triton"
            yield Finding(name, "not installed", "error" if wanted else "note")
