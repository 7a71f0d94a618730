"""Training with weights, gradients, averages and optimiser state divided among ranks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from maskpre.checkpoints.read import read_checkpoint
from maskpre.checkpoints.sharded import TensorPath, is_sharded, load_sharded, map_tensors, save_sharded
from maskpre.model import MaskedModel
from maskpre.parallel.shard import shard_model


class ShardedStrategy(ModelParallelStrategy):
    """FSDP2 over all ranks; checkpoints are folders in the form of torch.distributed.checkpoint.

    The content of a checkpoint is the same as with one rank or with DDP, so that each goes on from the
    others' and from those of any number of ranks.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1)

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Lightning hands over the optimiser's state, as with DDP."""
        return True

    def setup_environment(self) -> None:
        """Put all ranks into one group that shares the weights."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def shard(self, model: MaskedModel) -> None:
        """Divide a model among the ranks."""
        shard_model(model, self.device_mesh["data_parallel"])

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The share of this rank."""
        assert self.lightning_module is not None
        return self.lightning_module.state_dict()

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The share of this rank."""
        plain = optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        return plain.state_dict()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: _PATH, storage_options: Any | None = None
    ) -> None:
        """Write a folder, to which every rank adds its share; see `save_sharded`."""
        save_sharded(checkpoint, Path(self.broadcast(filepath)), rank=self.global_rank, barrier=self.barrier)

    def load_checkpoint(self, checkpoint_path: _PATH, weights_only: bool | None = None) -> dict[str, Any]:
        """Read this rank's share of a folder, or cut it out of a file."""
        path = Path(self.broadcast(checkpoint_path))
        if is_sharded(path):
            return load_sharded(path, self._empty)
        return cast(dict[str, Any], map_tensors(read_checkpoint(path), self._cut))

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """See `Strategy.load_model_state_dict`."""
        assert self.lightning_module is not None
        self.lightning_module.load_state_dict(checkpoint["state_dict"], strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """See `Strategy.load_optimizer_state_dict`."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            optimizer.load_state_dict(state)

    def _weight(self, path: TensorPath) -> Tensor | None:
        """The weight that an entry of a checkpoint belongs to, if any."""
        if path[0] in ("state_dict", "ema"):
            module: Any = self.lightning_module
            return cast(Tensor | None, module.model.state_dict(keep_vars=True).get(path[1]))
        if path[0] == "optimizer_states" and path[2] == "state":
            groups = self.optimizers[int(path[1])].param_groups
            return cast(Tensor, [weight for group in groups for weight in group["params"]][int(path[3])])
        return None

    def _empty(self, path: TensorPath, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """Where an entry is read to: divided as its weight is, if it has the weight's shape."""
        weight = self._weight(path)
        if isinstance(weight, DTensor) and weight.shape == shape:
            return torch.empty_like(weight.detach(), dtype=dtype)
        return torch.empty(shape, dtype=dtype)

    def _cut(self, path: TensorPath, value: Tensor) -> Tensor:
        """The share of this rank of a whole tensor."""
        weight = self._weight(path)
        if not isinstance(weight, DTensor) or weight.shape != value.shape:
            return value
        mesh = weight.device_mesh
        return distribute_tensor(value.to(mesh.device_type), mesh, weight.placements, src_data_rank=None)
