"""Weights in a configuration that a run must make first."""

from omegaconf import DictConfig, ListConfig, OmegaConf

from maskpre.checkpoints.sources import PlannedWeights
from maskpre.config.expected import is_component
from maskpre.config.target import NoTargetError, locate, product_of


def planned_weights(node: DictConfig | ListConfig) -> list[DictConfig]:
    """The entries below a node that describe `PlannedWeights`; references are not followed."""
    found: list[DictConfig] = []
    keys = list(node) if isinstance(node, DictConfig) else list(range(len(node)))
    for key in keys:
        if OmegaConf.is_interpolation(node, key) or OmegaConf.is_missing(node, key):
            continue
        child = node[key]
        if isinstance(child, DictConfig) and _is_planned(child):
            found.append(child)
        elif isinstance(child, DictConfig | ListConfig):
            found += planned_weights(child)
    return found


def _is_planned(node: DictConfig) -> bool:
    try:
        product = product_of(locate(str(node["_target_"]))) if "_target_" in node else None
    except NoTargetError:
        return False
    return is_component(product) and issubclass(product, PlannedWeights)
