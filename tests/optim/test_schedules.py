import math

import pytest
import torch
from timm.scheduler import CosineLRScheduler

from maskpre.errors import UserError
from maskpre.optim import (
    ChainedCosine,
    CosineDecay,
    FlooredCosine,
    LinspaceCosine,
    LrRun,
    MultiStep,
    OverlappingCosine,
    WarmupCosine,
)


def run(peak=1e-3, batch_ratio=1.0, total_steps=100, steps_per_epoch=10):
    return LrRun(peak=peak, batch_ratio=batch_ratio, total_steps=total_steps, steps_per_epoch=steps_per_epoch)


def test_warmup_cosine_counts_fractional_epochs_and_scales_the_floor_with_the_layer():
    curve = WarmupCosine(warmup_epochs=2, min_lr=1e-4).bind(run())
    assert curve(5) == pytest.approx(1e-3 * 0.25)
    assert curve(60) == pytest.approx(1e-4 + 9e-4 * 0.5)
    assert curve(100, 0.5) == pytest.approx(0.5e-4)


def test_chained_cosine_peaks_on_the_last_warmup_step_and_the_first_cosine_step():
    curve = ChainedCosine(warmup_epochs=2, warmup_factor=1e-4).bind(run())
    assert curve(0) == pytest.approx(1e-7)
    assert curve(19) == pytest.approx(1e-3)
    assert curve(20) == pytest.approx(1e-3)
    assert curve(21) == pytest.approx(1e-3 * 0.5 * (1 + math.cos(math.pi / 80)))


@pytest.mark.parametrize("batch_ratio", [1.0, 4.0])
@pytest.mark.parametrize("layer_scale", [1.0, 0.3])
def test_overlapping_cosine_is_timms_scheduler_one_step_late(batch_ratio, layer_scale):
    peak = 1e-3 * batch_ratio * layer_scale
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    official = CosineLRScheduler(
        optimizer,
        t_initial=100,
        lr_min=1e-5 * batch_ratio,
        warmup_lr_init=1e-6 * batch_ratio,
        warmup_t=20,
        cycle_limit=1,
        t_in_epochs=False,
    )
    schedule = OverlappingCosine(warmup_epochs=2, warmup_lr=1e-6, min_lr=1e-5)
    curve = schedule.bind(run(peak=1e-3 * batch_ratio, batch_ratio=batch_ratio))
    for step in range(100):
        assert curve(step, layer_scale) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        official.step_update(step)


def test_multi_step_drops_at_its_milestone_one_step_late():
    curve = MultiStep(warmup_epochs=1, warmup_lr=1e-6, milestones=[7]).bind(run(batch_ratio=2.0))
    assert curve(0) == curve(1) == pytest.approx(2e-6)
    assert curve(70) == pytest.approx(1e-3)
    assert curve(71) == pytest.approx(1e-4)


def test_floored_cosine_starts_and_ends_at_its_shares_of_the_peak():
    curve = FlooredCosine(warmup_epochs=2).bind(run())
    assert [curve(0), curve(10), curve(20)] == pytest.approx([5e-6, 5.025e-4, 1e-3], rel=1e-12)
    half = 20 + 79 / 2
    assert (curve(math.floor(half)) + curve(math.ceil(half))) / 2 == pytest.approx(1.001e-3 / 2, rel=1e-6)
    assert [curve(99), curve(150)] == pytest.approx([1e-6, 1e-6])
    assert curve(30, 0.25) == 0.25 * curve(30)


def test_cosine_decay_rises_along_half_a_cosine_of_all_steps():
    decay = CosineDecay(end=0.2).bind(run(total_steps=101), start=0.04)
    assert [decay(0), decay(50), decay(100)] == pytest.approx([0.04, 0.12, 0.2])
    assert decay(25) == pytest.approx(0.04 + 0.16 * 0.5 * (1 - math.cos(math.pi / 4)))
    with pytest.raises(UserError, match=r"the weight decay at the end \(-0.1\) must be at least 0"):
        CosineDecay(end=-0.1)


def test_a_warmup_that_outlasts_the_run_is_refused():
    with pytest.raises(
        UserError, match=r"warmup_epochs \(40\) must .* less than the epochs of the run \(10\)"
    ):
        WarmupCosine(warmup_epochs=40).bind(run())


def test_linspace_cosine_includes_both_ends_of_the_warm_up():
    run = LrRun(peak=4.0, batch_ratio=2.0, total_steps=20, steps_per_epoch=2.5)
    curve = LinspaceCosine(warmup_epochs=2, min_lr=0.25).bind(run)
    expected = [4.0 * i / 4 for i in range(5)]
    expected += [0.5 + 0.5 * 3.5 * (1 + math.cos(math.pi * i / 15)) for i in range(15)]
    assert [curve(step) for step in range(20)] == pytest.approx(expected)
    assert curve(9, 0.5) == pytest.approx(0.5 * expected[9])
