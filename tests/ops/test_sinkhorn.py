import os
import threading
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from maskpre.ops.sinkhorn import sinkhorn

SIZES = {"eps": 0.05, "iterations": 5}


def written_out(scores, *, eps, iterations):
    """The iterations on the matrix itself."""
    matrix = (scores / eps).exp().T
    clusters, tokens = matrix.shape
    matrix = matrix / matrix.sum()
    for _ in range(iterations):
        matrix = matrix / matrix.sum(dim=1, keepdim=True) / clusters
        matrix = matrix / matrix.sum(dim=0, keepdim=True) / tokens
    return (matrix / matrix.sum(dim=0, keepdim=True)).T


def cosines(tokens, clusters, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(tokens, clusters, generator=generator, dtype=dtype) * 2 - 1


class SharedReduce:
    """Ranks that are threads of this process."""

    def __init__(self, ranks):
        self.barrier, self.given = threading.Barrier(ranks), [None] * ranks

    def of(self, rank):
        def reduce(values, operation):
            self.given[rank] = values
            self.barrier.wait()
            stacked = torch.stack(self.given)
            self.barrier.wait()
            return stacked.sum(dim=0) if operation == "sum" else stacked.max(dim=0).values

        return reduce


def on_threads(parts, **options):
    shared, found = SharedReduce(len(parts)), [None] * len(parts)

    def work(rank):
        found[rank] = sinkhorn(parts[rank], reduce=shared.of(rank), **options)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(len(parts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return torch.cat(found)


@pytest.mark.parametrize("shape", [(64, 16), (24, 30), (7, 2), (1, 5)])
@pytest.mark.parametrize("iterations", [0, 1, 10])
def test_is_the_iteration_on_the_matrix(shape, iterations):
    scores = cosines(*shape)
    found = sinkhorn(scores, eps=0.05, iterations=iterations)
    expected = written_out(scores, eps=0.05, iterations=iterations)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-7)


def test_tokens_are_whole_and_clusters_alike():
    found = sinkhorn(cosines(300, 10), eps=0.05, iterations=100).double()
    torch.testing.assert_close(found.sum(dim=1), torch.ones(300, dtype=torch.float64))
    torch.testing.assert_close(
        found.sum(dim=0), torch.full((10,), 30.0, dtype=torch.float64), rtol=1e-3, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_score_is_too_large(dtype):
    scores = (cosines(40, 6) * 1e4).to(dtype)
    found = sinkhorn(scores, **SIZES)
    assert found.isfinite().all()
    torch.testing.assert_close(found.sum(dim=1), torch.ones(40))
    small = sinkhorn(scores.double() / 1e4, **SIZES)
    assert torch.equal(sinkhorn(scores.double() / 1e4 + 7e4, **SIZES).argmax(1), small.argmax(1))


def test_autocast_makes_no_difference():
    scores = cosines(64, 16).float()
    with torch.autocast("cpu", torch.bfloat16):
        found = sinkhorn(scores, **SIZES)
    assert torch.equal(found, sinkhorn(scores, **SIZES))


def test_one_cluster_takes_all_by_far():
    scores = torch.zeros(500, 4)
    scores[:, 0] = 1e6
    torch.testing.assert_close(sinkhorn(scores, eps=0.01, iterations=50), torch.full((500, 4), 0.25))
    scores[0, 1] = 1e6
    found = sinkhorn(scores, eps=0.01, iterations=50)
    assert found.isfinite().all()
    assert found[0].argmax() == 1


def test_no_gradient():
    assert not sinkhorn(cosines(4, 3).requires_grad_(), **SIZES).requires_grad


def test_tokens_without_weight_have_no_influence():
    scores, weight = cosines(20, 6), torch.ones(20)
    weight[::3] = 0.0
    chosen = weight > 0
    found = sinkhorn(scores, weight=weight, **SIZES)
    assert found.isfinite().all()
    torch.testing.assert_close(found[chosen], sinkhorn(scores[chosen], **SIZES))
    twice = torch.cat([scores, scores[:5]])
    double = torch.ones(20)
    double[:5] = 2.0
    torch.testing.assert_close(sinkhorn(scores, weight=double, **SIZES), sinkhorn(twice, **SIZES)[:20])


@pytest.mark.parametrize("split", [[12, 8], [1, 19], [5, 5, 10]])
def test_ranks_together_are_one(split):
    scores = cosines(20, 6)
    found = on_threads(scores.split(split), **SIZES)
    torch.testing.assert_close(found, sinkhorn(scores, **SIZES), rtol=1e-6, atol=1e-9)
    alone = torch.cat([sinkhorn(part, **SIZES) for part in scores.split(split)])
    assert not torch.allclose(alone, found, atol=1e-3)


def process(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.save(sinkhorn(cosines(20, 6).split([13, 7])[rank], **SIZES), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_are_one(tmp_path):
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    mp.spawn(process, args=(str(tmp_path),), nprocs=2)
    found = torch.cat([torch.load(tmp_path / f"{rank}.pt") for rank in range(2)])
    torch.testing.assert_close(found, sinkhorn(cosines(20, 6), **SIZES), rtol=1e-6, atol=1e-9)
