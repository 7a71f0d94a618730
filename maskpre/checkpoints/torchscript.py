"""Reading the weights in a TorchScript archive, as OpenAI released CLIP, without running its code.

`torch.jit.load` compiles the programs in the archive. The weights lie beside them as a pickle of nested
modules, of which tensors are read here and all else becomes `Inert`.
"""

import pickle
import zipfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import torch
from torch import Tensor

from maskpre.checkpoints.inert import Inert, Unpickler

_MODULES = "__torch__"
_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Module(Inert):
    """An archived module: its parameters, buffers, attributes and submodules by name."""

    def __setstate__(self, state: object) -> None:
        """Take them."""
        if isinstance(state, dict):
            self.update(state)


class _ArchiveUnpickler(Unpickler):
    def __init__(self, archive: zipfile.ZipFile, folder: PurePosixPath) -> None:
        super().__init__(archive.open(str(folder / "data.pkl")))
        self.archive, self.folder = archive, folder
        self.read: dict[str, torch.UntypedStorage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """See `Unpickler.find_class`."""
        return Module if module.split(".")[0] == _MODULES else super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Any:
        """The storage that ("storage", kind, file, device, length) names, on the CPU."""
        _, kind, key, _, _ = pid
        if key not in self.read:
            content = bytearray(self.archive.read(str(self.folder / "data" / key)))
            self.read[key] = torch.frombuffer(content, dtype=torch.uint8).untyped_storage()
        return torch.storage.TypedStorage(
            wrap_storage=self.read[key], dtype=_DTYPES[kind.__name__], _internal=True
        )


def find_program(archive: zipfile.ZipFile) -> PurePosixPath | None:
    """The folder in a zip file that holds a TorchScript program; None if it is an ordinary checkpoint."""
    names = (PurePosixPath(name) for name in archive.namelist())
    return next((name.parent for name in names if name.name == "constants.pkl"), None)


def read_program(archive: zipfile.ZipFile, folder: PurePosixPath) -> dict[str, Tensor]:
    """The tensors of an archive by dotted names, on the CPU.

    Raises UnpicklingError or KeyError if the archive is damaged.
    """
    module = _ArchiveUnpickler(archive, folder).load()
    if not isinstance(module, Module):
        raise pickle.UnpicklingError(f"{folder} holds a {type(module).__name__}, no module")
    return dict(_tensors(module, ""))


def _tensors(module: Module, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in module.items():
        if isinstance(value, Tensor):
            yield prefix + name, value.detach()
        elif isinstance(value, Module):
            yield from _tensors(value, f"{prefix}{name}.")
