"""Checkpoints of classifiers that this package trained."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from torch import nn

from maskpre.checkpoints.architecture import Architecture
from maskpre.checkpoints.source import State, TimmSource
from maskpre.checkpoints.swin_extras import SwinExtras
from maskpre.errors import UserError

RECORD = "classifier"
STATE = "state_dict"
WEIGHTS = "model."
AVERAGE = "ema.module."
# A buffer that the state of every classifier has, also of those from before there was a record.
MARK = "best_top1"


@dataclass(frozen=True, kw_only=True)
class ClassifierRecord:
    """What a classifier is beside its weights, and what it was shown.

    `channels` and `image_size` are those of its data, which were normalised by `mean` and `std` in [0, 1].
    """

    architecture: Architecture
    num_classes: int
    global_pool: str
    channels: int
    image_size: int
    mean: list[float]
    std: list[float]

    def plain(self) -> dict[str, Any]:
        """As plain containers."""
        return asdict(self)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """The record that `plain` made these containers of."""
        built = plain["architecture"]
        extras = SwinExtras(**built["swin_extras"])
        return cls(**{**plain, "architecture": Architecture(built["name"], built["options"], extras)})


class FineTunedSource(TimmSource):
    """A classifier, head included: its moving average if there is one, as in its scores."""

    def __init__(self, *, state: State, record: ClassifierRecord, kind: str) -> None:
        super().__init__(state=state, architecture=record.architecture, kind=kind)
        self.record = record

    def model(self) -> State:
        """Behind "encoder."; the norm of the pooled token becomes that of the tokens."""
        return {f"encoder.{token_norm(name)}": value for name, value in self.state.items()}

    def build(self) -> nn.Module:
        """The classifier itself, pooling included; UserError if its weights are not all there."""
        record = self.record
        net = record.architecture.build(num_classes=record.num_classes, global_pool=record.global_pool)
        try:
            net.load_state_dict(self.state)
        except RuntimeError as error:
            raise UserError(f"the weights don't fit the network recorded beside them: {error}") from error
        return net


def token_norm(name: str) -> str:
    """The same name, or where an encoder that pools nothing has what is the pooled token's norm elsewhere."""
    return name.removeprefix("fc_") if name.startswith("fc_norm.") else name


def open_fine_tuned(
    content: Mapping[str, Any], path: Path, *, average: bool = False
) -> FineTunedSource | None:
    """The classifier in a checkpoint's content; None if it is something else.

    Raises UserError if its network isn't recorded, or it has no moving average and `average` wants that.
    """
    state: Any = content.get(STATE)
    if not isinstance(state, Mapping) or MARK not in state:
        return None
    if RECORD not in content:
        raise UserError(
            f"{path} holds a classifier without a record of its network, as probes and older versions wrote "
            "them; take the checkpoint that it was started from, or fine-tune that again"
        )
    averaged = _below(state, AVERAGE)
    if average and not averaged:
        raise UserError(f"{path} holds no moving average of the classifier's weights")
    return FineTunedSource(
        state=averaged or _below(state, WEIGHTS),
        record=ClassifierRecord.of(content[RECORD]),
        kind="fine-tuned, averaged weights" if averaged else "fine-tuned",
    )


def _below(state: Mapping[str, Any], prefix: str) -> State:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
