"""Which hidden layers a target is made of."""

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class LayerChoice:
    """Layers, counted from 1, and the share of the loss that each has; the shares add up to 1."""

    chosen: tuple[int, ...]
    weights: tuple[float, ...]


def choose_layers(selection: str | Sequence[int], depth: int) -> LayerChoice:
    """Layers of a network of `depth` by their numbers, or by MaskAlign's names; see `FeatureTarget`.

    Layers of weight 0 are not among them. Raises ValueError if there are no such layers.
    """
    if depth == 0:
        raise ValueError(
            f"the hidden layers {selection!r} are asked of a network that gives its final features only; use "
            "layers=output, or a plain ViT"
        )
    chosen = _by_name(selection, depth) if isinstance(selection, str) else tuple(selection)
    if not chosen or len(set(chosen)) < len(chosen) or not all(1 <= layer <= depth for layer in chosen):
        raise ValueError(f"layers={selection!r} names none or others than the layers 1 to {depth}, each once")
    shares = [layer - 1 for layer in chosen] if selection == "linear_decay" else [1] * len(chosen)
    return LayerChoice(chosen, tuple(share / sum(shares) for share in shares))


def _by_name(name: str, depth: int) -> tuple[int, ...]:
    layers = tuple(range(1, depth + 1))
    if name in ("mean", "linear_decay"):
        return layers if name == "mean" else layers[1:]
    if name == "out":
        return layers[-1:]
    match = re.fullmatch(r"(top|mid)(\d+)", name)
    if match is None:
        raise ValueError(
            f"layers={name!r} is unknown; use output, mean, out, topN, midN, linear_decay or a list of layers"
        )
    number = int(match[2])
    if match[1] == "mid":
        return (number + 1,)
    return layers[depth - number :] if number <= depth else (0,)
