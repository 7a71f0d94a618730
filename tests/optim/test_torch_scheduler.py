import pytest
import torch

from maskpre.optim import CosineDecay, Curves, FlooredCosine, LrRun, WarmupCosine, lambda_lr

RUN = LrRun(peak=1e-3, batch_ratio=1.0, total_steps=100, steps_per_epoch=10)


def test_lambda_lr_brings_the_curve_and_the_layer_scale_to_the_optimizer():
    def optimizer_with_two_groups():
        heavy, light = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
        light_group = {"params": [light], "lr": 1e-4, "lr_scale": 0.1}
        return torch.optim.SGD([{"params": [heavy]}, light_group], lr=1e-3)

    optimizer = optimizer_with_two_groups()
    curve = WarmupCosine(warmup_epochs=2).bind(RUN)
    scheduler = lambda_lr(optimizer, curve)
    for step in range(30):
        lrs = [group["lr"] for group in optimizer.param_groups]
        assert lrs == pytest.approx([curve(step), 0.1 * curve(step)], rel=1e-12)
        optimizer.step()
        scheduler.step()
    resumed = lambda_lr(optimizer_with_two_groups(), curve)
    resumed.load_state_dict(scheduler.state_dict())
    assert resumed.get_last_lr() == scheduler.get_last_lr()


def test_the_decay_moves_in_groups_that_decay_and_goes_on_after_a_resume():
    def optimizer():
        heavy, light = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
        groups = [{"params": [heavy], "weight_decay": 0.04}, {"params": [light], "weight_decay": 0.0}]
        return torch.optim.SGD(groups, lr=1e-3)

    curves = Curves(
        lr=FlooredCosine(warmup_epochs=2).bind(RUN),
        weight_decay=CosineDecay(end=0.2).bind(RUN, start=0.04),
    )
    first = optimizer()
    scheduler = lambda_lr(first, curves)
    for step in range(30):
        assert first.param_groups[0]["lr"] == pytest.approx(curves(step))
        decays = [group["weight_decay"] for group in first.param_groups]
        assert decays == pytest.approx([curves.weight_decay(step), 0.0])
        first.step()
        scheduler.step()
    second = optimizer()
    resumed = lambda_lr(second, curves)
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(scheduler.state_dict())
    second.step()
    resumed.step()
    assert second.param_groups[0]["weight_decay"] == pytest.approx(curves.weight_decay(31))
