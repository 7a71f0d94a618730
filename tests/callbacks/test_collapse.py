import warnings
from types import SimpleNamespace

import pytest
import torch

from maskpre.callbacks.collapse import CollapseWarning


def run(callback, values, first_step=1):
    """One log per value, each seen twice (accumulated batches end a step once)."""
    for step, value in enumerate(values, start=first_step):
        trainer = SimpleNamespace(global_step=10 * step, log_every_n_steps=10)
        metrics = {"main": {"target_nearest_entropy": torch.tensor(value), "clusters_used": torch.tensor(0)}}
        for _ in range(2):
            callback.on_train_batch_end(trainer, None, {"step": SimpleNamespace(metrics=metrics)}, {}, 0)


def test_a_collapse_is_told_once():
    callback = CollapseWarning(min_entropy=0.1, patience=3)
    with pytest.warns(UserWarning, match=r"train/main/target_nearest_entropy was below 0.1 in 3 logs"):
        run(callback, [0.05] * 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(callback, [0.05] * 5, first_step=4)


def test_clusters_in_use_are_no_collapse():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(CollapseWarning(min_entropy=0.1, patience=3), [0.05, 0.05, 0.3, 0.05, 0.05, 0.9])


def test_nothing_is_read_between_logs():
    callback = CollapseWarning(min_entropy=0.1, patience=1)
    trainer = SimpleNamespace(global_step=7, log_every_n_steps=10)
    metrics = {"main": {"target_nearest_entropy": None}}
    callback.on_train_batch_end(trainer, None, {"step": SimpleNamespace(metrics=metrics)}, {}, 0)


@pytest.mark.parametrize("options", [{"min_entropy": 0.0}, {"patience": 0}])
def test_senseless_options_are_refused(options):
    with pytest.raises(ValueError, match="must be"):
        CollapseWarning(**options)
