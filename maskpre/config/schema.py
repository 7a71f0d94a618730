"""What the top level of each command's configuration holds; anything else there is a mistake."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lightning import Callback, Trainer
from lightning.pytorch.loggers import Logger

from maskpre.checkpoints.formats import ExportFormat
from maskpre.checkpoints.sources import PlannedWeights
from maskpre.data import PretrainData
from maskpre.data.packing import Packing
from maskpre.encoders.base import Encoder
from maskpre.evaluation.base import Probe
from maskpre.evaluation.classifier import ClassifierRecipe
from maskpre.evaluation.models import Start
from maskpre.evaluation.streaming import StreamingLinearProbe
from maskpre.inputs import Inputs
from maskpre.losses.base import Loss
from maskpre.masking.base import Masking
from maskpre.objectives import Objective
from maskpre.ops.attention_choice import Backend
from maskpre.optim import OptimRecipe
from maskpre.passes import Pass
from maskpre.planning.options import PlanOptions
from maskpre.predictors.base import Predictor
from maskpre.targets.base import Target
from maskpre.teachers.cache import TeacherCache
from maskpre.teachers.ema import EmaTeacher


@dataclass(frozen=True, kw_only=True)
class TrainSchema:
    """A pretraining configuration. A class here means a mapping whose `_target_` makes an object of it."""

    data: PretrainData
    inputs: Inputs
    masking: Masking
    encoder: Encoder
    target: Target
    predictor: Predictor
    loss: Loss
    optim: OptimRecipe
    trainer: Trainer
    callbacks: dict[str, Callback | None] = field(default_factory=dict)
    logger: dict[str, Logger | None] = field(default_factory=dict)
    maskings: dict[str, Masking] = field(default_factory=dict)
    predictors: dict[str, Predictor] = field(default_factory=dict)
    targets: dict[str, Target] = field(default_factory=dict)
    passes: dict[str, Pass] = field(default_factory=dict)
    objectives: dict[str, Objective] = field(default_factory=dict)
    teacher: Encoder | None = None
    teachers: dict[str, Encoder | None] = field(default_factory=dict)
    averages: dict[str, EmaTeacher] = field(default_factory=dict)
    teacher_cache: TeacherCache | None = None
    seed: int = 0
    epochs: float = 10
    max_steps: int | None = None
    compile: bool = False
    activation_checkpointing: bool = False
    attention: Backend = "auto"
    name: str | None = None
    runs_dir: str = "runs"
    run_dir: str | None = None
    resume: str | None = "auto"
    init_from: str | PlannedWeights | None = None


@dataclass(frozen=True, kw_only=True)
class PlanSchema(TrainSchema):
    """A pretraining configuration, and what a plan of it needs to know."""

    plan: PlanOptions


@dataclass(frozen=True, kw_only=True)
class FinetuneSchema:
    """A fine-tuning configuration."""

    data: PretrainData
    recipe: ClassifierRecipe
    trainer: Trainer
    checkpoint: str
    start: Start = "checkpoint"
    head_rows: str | None = None
    activation_checkpointing: bool = False
    seed: int = 0
    name: str | None = None
    runs_dir: str = "runs"
    run_dir: str | None = None


@dataclass(frozen=True, kw_only=True)
class ProbeSchema:
    """A probing configuration."""

    data: PretrainData
    probe: Probe | StreamingLinearProbe
    trainer: Trainer
    checkpoint: str
    start: Start = "checkpoint"
    batch_size: int = 256
    max_train: int | None = None
    max_val: int | None = None
    seed: int = 0
    name: str | None = None
    runs_dir: str = "runs"
    run_dir: str | None = None


@dataclass(frozen=True, kw_only=True)
class ExportSchema:
    """What to export, where to, and how."""

    checkpoint: str
    out: str
    format: ExportFormat = "timm"


@dataclass(frozen=True, kw_only=True)
class VisualizeSchema:
    """What to draw; `images` None takes the data set's own."""

    checkpoint: str
    images: str | list[str] | None = None
    out: str = "reconstruction.png"
    num: int = 8
    seed: int = 0


SCHEMAS: Mapping[str, type] = {
    "train": TrainSchema,
    "plan": PlanSchema,
    "finetune": FinetuneSchema,
    "probe": ProbeSchema,
    "prepare": Packing,
    "export": ExportSchema,
    "visualize": VisualizeSchema,
}

# Arguments that the program gives to `_partial_` parts when they meet, and the key to set instead, if any.
SUPPLIED: Mapping[type, Mapping[str, str]] = {
    Masking: {"grid": "", "passes": "passes"},
    Target: {"grid": "", "passes": "passes"},
    Predictor: {
        "encoder": "encoder",
        "out_dim": "",
        "region": "objectives.NAME.region",
        "target_layers": "target.layers",
    },
    EmaTeacher: {"student": ""},
    Callback: {"folder": "run_dir"},
    Logger: {"folder": "run_dir"},
    Trainer: {
        "max_steps": "max_steps",
        "max_epochs": "epochs",
        "callbacks": "callbacks",
        "logger": "logger",
        "plugins": "",
        "default_root_dir": "run_dir",
        "enable_progress_bar": "callbacks.progress",
        "enable_checkpointing": "callbacks.save",
    },
}
