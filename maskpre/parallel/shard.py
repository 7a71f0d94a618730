"""Dividing a model's weights among ranks (FSDP2, torch.distributed.fsdp.fully_shard)."""

from collections.abc import Iterator

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from maskpre.encoders.base import Encoder
from maskpre.model import MaskedModel
from maskpre.parallel.gather import callable_inside
from maskpre.passes import Network


def _of_network(network: Network | nn.Module) -> Iterator[nn.Module]:
    """Encoder and predictors, each of which is called as a whole."""
    yield network.encoder  # type: ignore[misc]
    yield from network.predictors.values()  # type: ignore[union-attr,operator]


def _units(model: MaskedModel) -> Iterator[nn.Module]:
    """The modules whose weights are gathered for the time they run."""
    yield from _of_network(model.student)
    for average in model.averages.values():
        yield from _of_network(average.network)
    for group in (model.maskings, model.targets, model.objectives):
        yield from group.values()


def _shard(unit: nn.Module, mesh: DeviceMesh) -> None:
    # The outermost unit would keep what it gathered, and no backward pass frees an average.
    fully_shard(unit, mesh=mesh, reshard_after_forward=True)


def shard_model(model: MaskedModel, mesh: DeviceMesh) -> None:
    """Leave every rank of `mesh` its share of each weight; doing it again changes nothing.

    An encoder's `units` are gathered one after another, other parts whole while they run.
    Frozen teachers stay whole on every rank.
    """
    for unit in _units(model):
        if isinstance(unit, FSDPModule) or next(unit.parameters(), None) is None:
            continue
        for block in unit.units if isinstance(unit, Encoder) else ():
            _shard(block, mesh)
            callable_inside(block)
        _shard(unit, mesh)
        for method in ("prepare", "compare"):
            if hasattr(unit, method):
                register_fsdp_forward_method(unit, method)
