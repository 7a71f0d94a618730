"""How Lightning writes and reads checkpoints that are one file."""

from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from maskpre.checkpoints.exchange import exchange
from maskpre.checkpoints.read import read_checkpoint
from maskpre.checkpoints.save import PathLike, atomic_save


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints written atomically and read without running code from the file."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: PathLike, storage_options: Any = None
    ) -> None:
        """Write to a local path, also where a folder is."""
        if not Path(path).is_dir():
            atomic_save(checkpoint, path)
            return
        beside = Path(path).with_name(f".{Path(path).name}.new")
        atomic_save(checkpoint, beside)
        exchange(beside, Path(path))

    def load_checkpoint(
        self, path: PathLike, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read tensors and plain containers onto the CPU, whatever the caller would allow."""
        return read_checkpoint(path)
