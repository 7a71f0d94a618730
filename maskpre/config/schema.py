"""What the top level of each command's configuration holds; anything else there is a mistake."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(kw_only=True)
class TrainSchema:
    """The top level of a pretraining configuration."""

    data: Any
    inputs: Any
    masking: Any
    encoder: Any
    target: Any
    predictor: Any
    loss: Any
    optim: Any
    trainer: Any
    callbacks: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)
    maskings: dict[str, Any] = field(default_factory=dict)
    predictors: dict[str, Any] = field(default_factory=dict)
    targets: dict[str, Any] = field(default_factory=dict)
    passes: dict[str, Any] = field(default_factory=dict)
    objectives: dict[str, Any] = field(default_factory=dict)
    teachers: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    epochs: float = 10
    max_steps: int | None = None
    compile: bool = False
    activation_checkpointing: bool = False
    name: str | None = None
    runs_dir: str = "runs"
    run_dir: str | None = None
    resume: str | None = "auto"
    init_from: str | None = None


SCHEMAS: Mapping[str, type] = {"train": TrainSchema}
