"""Making timm models by name, with errors that name the sizes."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

import timm
from torch import nn

from maskpre.nearest import divisors, multiples, nearest_number

Model = TypeVar("Model", bound=nn.Module)


def create_timm(
    name: str, kind: type[Model], *, img_size: int, in_chans: int, options: Mapping[str, object]
) -> Model:
    """A headless timm model of class `kind`; options that are None stay the named model's.

    Raises ValueError if timm has no such model, if it is of another class (a subclass may have parts that an
    encoder doesn't know), if timm refuses the sizes, or if patches don't divide the picture.
    """
    check_name(name)
    given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    heads, width = given.get("num_heads"), given.get("embed_dim")
    if isinstance(heads, int) and isinstance(width, int):
        check_heads(heads, width)
    try:
        net = timm.create_model(
            name, num_classes=0, global_pool="", img_size=img_size, in_chans=in_chans, **given
        )
    except (AssertionError, TypeError) as error:
        raise ValueError(
            f"timm can't build {name!r} as a {kind.__name__} with img_size {img_size} and {given}: {error}"
        ) from error
    if type(net) is not kind:
        raise ValueError(f"timm model {name!r} is a {type(net).__name__}, not a {kind.__name__}")
    embed: Any = net.patch_embed
    patch_size = tuple(embed.patch_size)
    if any(img_size % step for step in patch_size):
        nearest = nearest_number(img_size, multiples(max(patch_size), near=img_size))
        raise ValueError(f"img_size ({img_size}) must be a multiple of the patch size {patch_size}{nearest}")
    return net


def check_name(name: str) -> None:
    """Raise ValueError if timm has no such model, with the nearest names."""
    if not timm.is_model(name):
        family = timm.list_models(f"{name.split('_')[0]}*") or timm.list_models()
        close = ", ".join(get_close_matches(name, family, n=5, cutoff=0.0))
        raise ValueError(f"timm has no model {name!r}; the nearest names: {close}")


def check_heads(num_heads: int, embed_dim: int) -> None:
    """Raise ValueError if the heads can't share the width evenly."""
    if embed_dim % num_heads:
        nearest = nearest_number(num_heads, divisors(embed_dim))
        raise ValueError(f"num_heads ({num_heads}) must divide embed_dim ({embed_dim}){nearest}")
