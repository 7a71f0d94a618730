"""What a `_target_` names, and which arguments it takes."""

import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, get_type_hints

from torch import nn

from maskpre.config.expected import Annotation
from maskpre.nearest import did_you_mean


class NoTargetError(LookupError):
    """A `_target_` that names nothing, or nothing that can be called."""


@dataclass(frozen=True)
class Arguments:
    """Annotations of what can be given by name, and which of it must be; `more` if any other name can too."""

    annotations: Mapping[str, Annotation]
    required: frozenset[str]
    more: bool = False


def arguments_of(target: Callable[..., Any]) -> Arguments:
    """Read a class's or function's signature."""
    if inspect.isclass(target) and target.__init__ is nn.Module.__init__:
        # What it says it takes it refuses.
        return Arguments(annotations={}, required=frozenset())
    parameters = inspect.signature(target).parameters
    named = {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    }
    function = target.__init__ if inspect.isclass(target) else target
    hints = get_type_hints(function)
    return Arguments(
        annotations={name: hints.get(name, Any) for name in named},
        required=frozenset(name for name, value in named.items() if value.default is value.empty),
        more=any(value.kind is value.VAR_KEYWORD for value in parameters.values()),
    )


def product_of(target: Callable[..., Any]) -> Any:
    """What a call gives: the class itself, or what the function's annotation says."""
    return target if inspect.isclass(target) else get_type_hints(target).get("return", Any)


def locate(path: str) -> Callable[..., Any]:
    """Import what a dotted path names.

    Raises NoTargetError, with the nearest name that exists, if there is no such thing or it can't be called.
    What a module raises while it is imported passes through.
    """
    first, *rest = path.split(".")
    found: Any = _module(first)
    for depth, name in enumerate(rest, start=1):
        owner = ".".join([first, *rest[: depth - 1]])
        if not hasattr(found, name):
            if not hasattr(found, "__path__") or find_spec(f"{owner}.{name}") is None:
                raise NoTargetError(f"{owner} has no {name!r}{did_you_mean(name, _members(found))}")
            import_module(f"{owner}.{name}")
        found = getattr(found, name)
    if not callable(found):
        raise NoTargetError(f"{path} is a {type(found).__name__}, not a class or function")
    return found


def _module(name: str) -> ModuleType:
    if not name or find_spec(name) is None:
        raise NoTargetError(f"there is no package {name!r}")
    return import_module(name)


def _members(owner: Any) -> list[str]:
    inner = [found.name for found in pkgutil.iter_modules(getattr(owner, "__path__", []))]
    return inner + [
        name for name, value in vars(owner).items() if callable(value) and not name.startswith("_")
    ]
