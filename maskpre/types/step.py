"""One training step, from the batch to the loss."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from maskpre.types.encoded import Encoded
from maskpre.types.located import Located
from maskpre.types.mask_plan import MaskPlan


@runtime_checkable
class Noise(Protocol):
    """Random numbers that depend on the sample, not on who computes them."""

    def uniform(self, stream: str, num: int) -> Float[Tensor, "b n"]:
        """Numbers in [0, 1), the same whenever the same stream of the same samples is asked for."""
        ...


@dataclass
class Step:
    """Everything one training step has produced so far; passes and objectives fill it in order.

    `progress` is the share of the whole training done, in [0, 1]: schedules depend on nothing else.
    Plans and outputs are kept by pass, predictions by pass and predictor; losses, their maps and what
    else they measured by objective.
    """

    batch: dict[str, Tensor]
    views: dict[str, Tensor]
    noise: Noise
    progress: float
    plans: dict[str, MaskPlan] = field(default_factory=dict)
    outputs: dict[str, Encoded] = field(default_factory=dict)
    predictions: dict[str, dict[str, Located]] = field(default_factory=dict)
    losses: dict[str, Tensor] = field(default_factory=dict)
    loss_maps: dict[str, Located] = field(default_factory=dict)
    metrics: dict[str, Mapping[str, Tensor]] = field(default_factory=dict)
    total: Tensor | None = None
