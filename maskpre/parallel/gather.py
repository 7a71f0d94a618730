"""Running modules whose weights are divided among ranks (FSDP2), which are gathered while they are called."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import nn
from torch.distributed.fsdp import FSDPModule

R = TypeVar("R")


def kind_of(module: nn.Module) -> type:
    """The class a module was made of; dividing its weights gives it one of its own."""
    return type(module).__bases__[1] if isinstance(module, FSDPModule) else type(module)


def inside(module: nn.Module, function: Callable[..., R], *args: Any) -> R:
    """`function(module, *args)`, within a call of the module if `callable_inside` prepared it."""
    if isinstance(module, FSDPModule):
        return module(function, *args)  # type: ignore[operator]
    return function(module, *args)


def callable_inside(module: nn.Module) -> None:
    """Let `inside` run functions within a call of the module, which then has no forward of its own."""
    module.forward = lambda function, *args: function(module, *args)


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """All weights of a module whole on every rank, so that one rank alone can run it; all must enter."""
    units = [part for part in module.modules() if isinstance(part, FSDPModule)]
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.reshard()
            unit.set_reshard_after_forward(True, recurse=False)
