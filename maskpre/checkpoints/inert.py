"""A pickle module for `torch.load` that rebuilds tensors and plain containers and nothing else.

Official checkpoints carry argument namespaces, configuration nodes and logging buffers beside the weights,
which `torch.load(weights_only=True)` refuses as a whole. Here every foreign class becomes `Inert`.
"""

import pickle
from collections.abc import Iterable
from typing import Any

SAFE = {
    ("collections", "OrderedDict"),
    ("torch", "Size"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
}

UnpicklingError = pickle.UnpicklingError


class Inert(dict[Any, Any]):
    """Stands for an object of a foreign class: it takes what it is given and does nothing with it."""

    # Pickle may construct it in any way: with arguments, or without calling the constructor.
    def __new__(cls, *args: object, **options: object) -> "Inert":
        """An empty one."""
        return super().__new__(cls)

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        """Take an object's state."""

    def append(self, item: object) -> None:
        """Take an item of a foreign sequence."""

    def extend(self, items: Iterable[object]) -> None:
        """Take the items of a foreign sequence."""


class Unpickler(pickle.Unpickler):
    """Finds no class but those in `SAFE` and torch's typed storages."""

    def find_class(self, module: str, name: str) -> Any:
        """The class or function a pickle asks for, or `Inert` instead."""
        if (module, name) in SAFE or (module == "torch" and name.endswith("Storage")):
            return super().find_class(module, name)
        return Inert
