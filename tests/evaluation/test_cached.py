from pathlib import Path

import hydra
import pytest
import torch
from omegaconf import OmegaConf

from maskpre.errors import UserError
from maskpre.evaluation import Features

CONFIGS = Path(__file__).parents[2] / "configs" / "probe"


def probe(name, **changes):
    return hydra.utils.instantiate(OmegaConf.merge(OmegaConf.load(CONFIGS / f"{name}.yaml"), changes))


def classes_in_one_token(num, *, tokens=6, width=16, num_classes=4, noise=False):
    """Token features in which one token at a random place tells the class; or labels drawn at random."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(num_classes, (num,), generator=generator)
    values = torch.randn(num, tokens, width, generator=generator)
    place = torch.randint(tokens, (num,), generator=generator)
    marks = 8 * torch.eye(width)[:num_classes]
    values[torch.arange(num), place] += marks[labels]
    if noise:
        labels = torch.randint(num_classes, (num,), generator=generator)
    return Features(values, labels)


def split(features, at):
    rows = torch.arange(len(features))
    return features[rows[:at]], features[rows[at:]]


def mean_token(features):
    return Features(features.values.mean(dim=1), features.labels)


SHORT_LINEAR = {"epochs": 40, "batch_size": 64, "optim": {"lr_batch": 64, "schedule": {"warmup_epochs": 2}}}
SHORT_ATTENTIVE = {"epochs": 20, "batch_size": 64, "base_lrs": [1e-2], "optim": {"lr_batch": 64}}


def test_linear_probe_learns_what_is_linearly_separable():
    train, test = split(mean_token(classes_in_one_token(1200)), 800)
    result = probe("linear_cached", **SHORT_LINEAR)(train, test)
    assert result.top1 > 0.9
    assert result.details["base_lr"] in (1.0, 3.0, 10.0)


def test_attentive_probe_beats_the_linear_one_when_one_token_tells():
    features = classes_in_one_token(1600, tokens=24)
    linear = probe("linear_cached", **SHORT_LINEAR)(*split(mean_token(features), 1200))
    attentive = probe("attentive", **SHORT_ATTENTIVE)(*split(features, 1200))
    assert attentive.top1 > 0.9
    assert attentive.top1 > linear.top1 + 0.1


@pytest.mark.parametrize(("name", "short"), [("linear_cached", SHORT_LINEAR), ("attentive", SHORT_ATTENTIVE)])
def test_random_labels_give_chance(name, short):
    features = classes_in_one_token(1200, noise=True)
    if name == "linear_cached":
        features = mean_token(features)
    assert probe(name, **short)(*split(features, 800)).top1 == pytest.approx(0.25, abs=0.07)


def test_the_seed_alone_decides_the_result():
    train, test = split(mean_token(classes_in_one_token(300)), 200)
    results = [probe("linear_cached", **SHORT_LINEAR, seed=seed)(train, test) for seed in (0, 0, 1)]
    assert results[0] == results[1]
    assert results[0].details != results[2].details


def test_test_labels_do_not_choose_the_rate():
    train, test = split(mean_token(classes_in_one_token(300)), 200)
    shuffled = Features(test.values, test.labels.flip(0))
    chosen = [
        probe("linear_cached", **SHORT_LINEAR)(train, judge).details["base_lr"] for judge in (test, shuffled)
    ]
    assert chosen[0] == chosen[1]


def test_settings_that_cannot_work_are_named():
    with pytest.raises(Exception, match="base_lrs is empty"):
        probe("linear_cached", base_lrs=[])
    with pytest.raises(Exception, match=r"holdout \(1.0\) must be in \(0, 1\)"):
        probe("linear_cached", holdout=1.0)
    features = classes_in_one_token(8)
    with pytest.raises(UserError, match=r"num_heads \(5\) must divide the feature width \(16\)"):
        probe("attentive", num_heads=5)(features, features)
