"""Batch norm over rows: of one rank torch's own, of several what one rank with all rows would compute."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from timm.layers.norm_act import BatchNormAct2d

from maskpre.ops.batch_norm import check_statistics, normalise_rows

SCRIPT = Path(__file__).with_name("norm_ranks.py")
SHARED = runpy.run_path(str(SCRIPT))
NORMS, make, rows, step = (SHARED[name] for name in ("NORMS", "make", "rows", "step"))


@pytest.mark.parametrize("kind", NORMS)
def test_alone_it_is_the_layer(kind):
    ours, theirs = make(kind), make(kind)
    x = rows()
    assert torch.equal(normalise_rows(ours, x, statistics="world"), theirs(x))
    torch.testing.assert_close(list(ours.buffers()), list(theirs.buffers()))
    assert torch.equal(normalise_rows(ours.eval(), x, statistics="rank"), theirs.eval()(x))


def test_an_activation_that_the_norm_holds_is_applied():
    layer = BatchNormAct2d(5).double()
    out = normalise_rows(layer, rows(), statistics="rank")
    assert out.min() == 0
    torch.testing.assert_close(normalise_rows(layer, rows(), statistics="rank", again=True), out)


@pytest.mark.parametrize("kind", NORMS)
def test_a_second_look_leaves_running_values_alone(kind):
    layer = make(kind)
    first = normalise_rows(layer, rows(), statistics="rank")
    before = [buffer.clone() for buffer in layer.buffers()]
    torch.testing.assert_close(normalise_rows(layer, rows(), statistics="rank", again=True), first)
    torch.testing.assert_close(list(layer.buffers()), before, rtol=0, atol=0)


def test_an_unknown_word_for_statistics_is_refused():
    with pytest.raises(ValueError, match="statistics must be 'rank' or 'world', got 'node'"):
        check_statistics("node")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    processes = [subprocess.Popen([sys.executable, str(SCRIPT), str(rank), str(folder)]) for rank in range(2)]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("kind", NORMS)
def test_two_ranks_give_what_one_would(kind, ranks):
    out, grad, gradients, buffers = step(make(kind), rows())
    found = [rank["world"][kind] for rank in ranks]
    exact = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(torch.cat([one[0] for one in found]), out, **exact)
    torch.testing.assert_close(torch.cat([one[1] for one in found]), grad, **exact)
    for first, second, expected in zip(found[0][2], found[1][2], gradients, strict=True):
        torch.testing.assert_close(first + second, expected, **exact)
    for one in found:
        torch.testing.assert_close(one[3], buffers, **exact)


def test_among_ranks_a_second_look_leaves_running_values_alone_and_rank_statistics_stay_apart(ranks):
    fresh = list(make("plain").buffers())
    for found, half in zip(ranks, rows().chunk(2), strict=True):
        torch.testing.assert_close(found["again"], fresh, rtol=0, atol=0)
        theirs = make("plain")
        out = theirs(half) + theirs(half.square())
        torch.testing.assert_close(found["rank"][0], out.detach())
        torch.testing.assert_close(found["rank"][3], list(theirs.buffers()))
