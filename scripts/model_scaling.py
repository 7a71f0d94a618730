"""Step time at 8 to 1024 GPUs, modelled from figures measured on one, and what limits it where.

python scripts/model_scaling.py --images-per-second 106 --parameters 329e6 --global-batch 4096

Compute: the samples of a GPU at the measured speed, which is taken to hold for small batches, too.
All-reduce: gradients of 4 bytes per parameter, in rings: within a node over its links, then each GPU its
share between nodes; every hop adds the latency, between nodes along a tree. It runs beside the backward pass,
which is two thirds of the compute; the last bucket of gradients has nothing left to hide behind.
Data: a node's cores decode, and one shared storage delivers to all nodes, while GPUs compute.
A step takes compute and what of the all-reduce isn't hidden, or the data if they take longer.
"""

import argparse
from dataclasses import dataclass
from math import ceil, log2
from typing import Literal

GPUS = (8, 16, 32, 64, 128, 256, 512, 1024)
Limit = Literal["compute", "all-reduce", "data"]


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """GPUs per node; GB/s that a GPU exchanges within its node and with other nodes; seconds per hop.

    `decoded` is images per second of one core, of which a node has `cores`; `storage` is GB/s that all nodes
    read together, of images of `image_bytes`.
    """

    per_node: int
    within: float
    between: float
    latency: float
    cores: int
    decoded: float
    storage: float
    image_bytes: float


@dataclass(frozen=True, kw_only=True)
class Job:
    """A measured speed of one GPU, parameters that are trained, and the batch over all GPUs.

    `bucket` is the share of gradients whose exchange starts only when the backward pass has ended.
    """

    images_per_second: float
    parameters: float
    global_batch: int
    bucket: float


@dataclass(frozen=True, kw_only=True)
class Step:
    """Seconds of one step by what they go to; `exposed` is what of the all-reduce isn't hidden."""

    compute: float
    all_reduce: float
    exposed: float
    data: float

    @property
    def total(self) -> float:
        """Of the step."""
        return max(self.compute + self.exposed, self.data)

    @property
    def limit(self) -> Limit:
        """What would have to become faster."""
        if self.data > self.compute + self.exposed:
            return "data"
        return "all-reduce" if self.exposed > self.compute else "compute"


def all_reduce_seconds(num_gpus: int, num_bytes: float, cluster: Cluster) -> float:
    """Rings within nodes, then among GPUs of the same place in all nodes."""
    here, nodes = min(num_gpus, cluster.per_node), ceil(num_gpus / cluster.per_node)
    inside = 2 * (here - 1) / here * num_bytes / (cluster.within * 1e9) + 2 * (here - 1) * cluster.latency
    if nodes == 1:
        return inside
    share = num_bytes / here
    across = 2 * (nodes - 1) / nodes * share / (cluster.between * 1e9)
    return inside + across + 2 * log2(nodes) * cluster.latency


def model_step(num_gpus: int, job: Job, cluster: Cluster) -> Step:
    """One optimiser step of the whole job."""
    compute = job.global_batch / num_gpus / job.images_per_second
    reduced = all_reduce_seconds(num_gpus, 4 * job.parameters, cluster)
    hidden = min((1 - job.bucket) * reduced, 2 / 3 * compute)
    nodes = ceil(num_gpus / cluster.per_node)
    decode = job.global_batch / (nodes * cluster.cores * cluster.decoded)
    read = job.global_batch * cluster.image_bytes / (cluster.storage * 1e9)
    return Step(compute=compute, all_reduce=reduced, exposed=reduced - hidden, data=max(decode, read))


def table(job: Job, cluster: Cluster) -> str:
    """Markdown, one row per number of GPUs."""
    first = model_step(GPUS[0], job, cluster)
    lines = [
        "| GPUs | compute ms | all-reduce ms (not hidden) | data ms | step ms | images/s | efficiency "
        "| limit |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for number in GPUS:
        step = model_step(number, job, cluster)
        efficiency = first.total * GPUS[0] / (step.total * number)
        cells = [
            f"{number}",
            f"{1e3 * step.compute:.1f}",
            f"{1e3 * step.all_reduce:.1f} ({1e3 * step.exposed:.1f})",
            f"{1e3 * step.data:.1f}",
            f"{1e3 * step.total:.1f}",
            f"{job.global_batch / step.total:,.0f}",
            f"{efficiency:.0%}",
            step.limit,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def turning_points(job: Job, cluster: Cluster) -> str:
    """From how many GPUs on each of the three is the limit."""
    found: dict[str, list[int]] = {}
    for number in GPUS:
        found.setdefault(model_step(number, job, cluster).limit, []).append(number)
    parts = [
        f"{limit} at {min(numbers)} to {max(numbers)} GPUs"
        if len(numbers) > 1
        else f"{limit} at {numbers[0]} GPUs"
        for limit, numbers in found.items()
    ]
    return "Limit: " + ", ".join(parts) + "."


def parse(argv: list[str] | None) -> tuple[Job, Cluster]:
    """What trains and what it trains on, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images-per-second", type=float, required=True, help="of one GPU, measured")
    parser.add_argument("--parameters", type=float, required=True, help="trained; see python -m maskpre.plan")
    parser.add_argument("--global-batch", type=int, default=4096)
    parser.add_argument("--bucket", type=float, default=0.05, help="share of gradients exchanged last")
    parser.add_argument("--per-node", type=int, default=8)
    parser.add_argument("--within", type=float, default=300, help="GB/s of a GPU inside its node")
    parser.add_argument("--between", type=float, default=25, help="GB/s of a GPU between nodes")
    parser.add_argument("--latency", type=float, default=2e-5, help="seconds per hop")
    parser.add_argument("--cores", type=int, default=64, help="CPU cores of a node that load data")
    parser.add_argument("--decoded", type=float, default=600, help="images/s of one core, measured")
    parser.add_argument("--storage", type=float, default=10, help="GB/s of the shared storage")
    parser.add_argument("--image-bytes", type=float, default=110e3)
    given = parser.parse_args(argv)
    job = Job(
        images_per_second=given.images_per_second,
        parameters=given.parameters,
        global_batch=given.global_batch,
        bucket=given.bucket,
    )
    cluster = Cluster(
        per_node=given.per_node,
        within=given.within,
        between=given.between,
        latency=given.latency,
        cores=given.cores,
        decoded=given.decoded,
        storage=given.storage,
        image_bytes=given.image_bytes,
    )
    return job, cluster


def main(argv: list[str] | None = None) -> str:
    """The table and its turning points."""
    job, cluster = parse(argv)
    return f"{table(job, cluster)}\n\n{turning_points(job, cluster)}"


if __name__ == "__main__":
    print(main())
