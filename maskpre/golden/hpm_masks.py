"""HPM's easy-to-hard masks."""

from dataclasses import dataclass

from maskpre.golden.case import CannotReplayError, Case, Tensors
from maskpre.golden.compare import Replay
from maskpre.masking.base import count_visible
from maskpre.masking.hard_patches import HardPatchMasking
from maskpre.ops.noise import GivenNoise
from maskpre.types import Grid, Step

# The official constant share without guidance, which depends on what is predicted.
UNGUIDED = {"none": 0.5, "clip": 0.2, "dino": 0.2, "ema": 0.2}
GUIDED_END = 0.5


@dataclass
class Setting:
    """Arguments of one official call; `keep_ratio` is the constant share without `guide`."""

    epoch: int
    total_epoch: int
    mask_ratio: float
    guide: bool = True
    keep_ratio: float | None = None
    learn_feature_loss: str = "none"


@dataclass
class Settings:
    """The calls of a case on `L` patches."""

    settings: list[Setting]
    L: int


def constant_share(case: Case, features: str, keep_ratio: float | None) -> float:
    """The share of hard patches without guidance; CannotReplayError for an unknown kind of features."""
    if features not in UNGUIDED:
        known = ", ".join(UNGUIDED)
        raise CannotReplayError(f"{case.name}: learn_feature_loss {features!r} is unknown; known are {known}")
    return UNGUIDED[features] if keep_ratio is None else keep_ratio


def replay(case: Case) -> Replay:
    """Every mask from the same predicted losses and noise."""
    s = case.settings(Settings)
    masks: Tensors = {}
    counts = []
    for i, setting in enumerate(s.settings):
        masking = _masking(case, setting, s.L)
        step = Step(
            batch={},
            views={},
            noise=GivenNoise({"mask": case.input("noise")}),
            progress=setting.epoch / setting.total_epoch,
        )
        masks[f"mask{i}"] = masking.choose(case.input("loss_pred"), step, masking.grid).mask.double()
        visible = count_visible(s.L, setting.mask_ratio)
        counts.append([visible, int((s.L - visible) * masking.share(step.progress))])
    return Replay(tensors=masks, extras={"len_keep_and_number_of_hardest": counts})


def _masking(case: Case, setting: Setting, cells: int) -> HardPatchMasking:
    constant = constant_share(case, setting.learn_feature_loss, setting.keep_ratio)
    return HardPatchMasking(
        grid=Grid((cells,), (1,)),
        ratio=setting.mask_ratio,
        start=0.0 if setting.guide else constant,
        end=GUIDED_END if setting.guide else constant,
        epochs=setting.total_epoch,
    )
