"""A rank in the tests of batch norm: `norm_ranks.py RANK FOLDER`. It imports little, to start fast."""

import sys
from copy import deepcopy
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from maskpre.ops.batch_norm import normalise_rows

NORMS = {
    "plain": nn.BatchNorm2d(5),
    "cumulative": nn.BatchNorm2d(5, momentum=None),
    "without weights": nn.BatchNorm2d(5, affine=False),
    "without running values": nn.BatchNorm2d(5, track_running_stats=False),
}


def make(kind):
    layer = deepcopy(NORMS[kind]).double()
    generator = torch.Generator().manual_seed(1)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, mean=0.5, generator=generator)
    return layer


def rows():
    return 3 + 2 * torch.randn(6, 5, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def step(layer, x, **options):
    """Output, gradients and buffers of two training steps with unlike rows."""
    x = x.clone().requires_grad_()
    options = {"statistics": "world", **options}
    out = normalise_rows(layer, x, **options) + normalise_rows(layer, x.square(), **options)
    weight = torch.linspace(-1, 1, 180, dtype=torch.float64).view(6, 5, 2, 3)
    start = dist.get_rank() * len(x) if dist.is_initialized() else 0
    (out * weight[start : start + len(x)]).sum().backward()
    gradients = [parameter.grad for parameter in layer.parameters()]
    return out.detach(), x.grad, gradients, list(layer.buffers())


def main(rank, folder):
    """What one of two ranks, each with half of the rows, makes of every kind of norm."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    half = rows().chunk(2)[rank]
    again = make("plain")
    step(again, half, again=True)
    results = {
        "world": {kind: step(make(kind), half) for kind in NORMS},
        "again": list(again.buffers()),
        "rank": step(make("plain"), half, statistics="rank"),
    }
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
