"""Where configurations live, what their top level holds, and how they are composed."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig


def _find_configs() -> Path:
    """configs/ inside an installed wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


CONFIG_DIR = _find_configs()


@dataclass
class TrainSchema:
    """The top level of a pretraining configuration; anything else there is a mistake."""

    data: Any = None
    inputs: Any = None
    masking: Any = None
    encoder: Any = None
    target: Any = None
    predictor: Any = None
    loss: Any = None
    optim: Any = None
    trainer: Any = None
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


ConfigStore.instance().store(name="train_schema", node=TrainSchema)


def compose(overrides: list[str], *, config_name: str = "train") -> DictConfig:
    """A configuration as the command line would compose it."""
    with initialize_config_dir(config_dir=str(CONFIG_DIR), version_base="1.3"):
        return hydra_compose(config_name, overrides=overrides)
