"""Running a timm classifier on a fine-tuning case."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from maskpre.golden.case import Case, Tensors
from maskpre.optim import DecayPolicyName, build_param_groups, layer_decay_table

Rename = Callable[[Mapping[str, Tensor]], Tensors]


@dataclass(frozen=True)
class Classified:
    """What goes into the head, what comes out, and the cross entropy with the case's labels."""

    features: Tensor
    logits: Tensor
    loss: Tensor


def classify(net: nn.Module, case: Case) -> Classified:
    """One forward of a timm classifier as it stands."""
    model: Any = net
    features = model.forward_head(model.forward_features(case.input("imgs")), pre_logits=True)
    logits = model.get_classifier()(features)
    return Classified(features, logits, cross_entropy(logits, case.input("labels")))


def decay_groups(
    net: nn.Module, *, layer_decay: float, weight_decay: float, policy: DecayPolicyName
) -> dict[str, list[float]]:
    """The learning-rate scale and weight decay that fine-tuning gives to each parameter."""
    names = {parameter: name for name, parameter in net.named_parameters()}
    groups = build_param_groups(
        net.named_parameters(),
        lr=1.0,
        weight_decay=weight_decay,
        policy=policy,
        lr_scales=layer_decay_table(names.values(), decay=layer_decay),
    )
    return {
        names[parameter]: [group["lr_scale"], group["weight_decay"]]
        for group in groups
        for parameter in group["params"]
    }


def official_names(state: Mapping[str, Tensor], rename: Rename) -> dict[str, str]:
    """Official names by the name this package has for the same tensor."""
    return {ours: name for name, value in state.items() for ours in rename({name: value})}
