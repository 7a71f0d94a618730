from dataclasses import replace
from functools import partial

import pytest
import timm
import torch
from lightning import Callback, Trainer

from maskpre.data.transforms import RandomPadCrop
from maskpre.errors import UserError
from maskpre.evaluation.augment import BatchAugment
from maskpre.evaluation.classifier import Classifier, ClassifierRecipe
from maskpre.evaluation.finetune import finetune
from maskpre.evaluation.models import start_classifier
from maskpre.optim import AdamWRecipe, WarmupCosine
from maskpre.run_folder import RunFolder

PLAIN = BatchAugment(mixup_alpha=0.0, cutmix_alpha=0.0, label_smoothing=0.0, erase_prob=0.0)
RECIPE = ClassifierRecipe(
    optim=AdamWRecipe(base_lr=3e-2, schedule=WarmupCosine(warmup_epochs=0), layer_decay=0.75),
    transform=RandomPadCrop(size=16, padding=0, flip=0.0),
    augment=PLAIN,
    epochs=4,
    batch_size=8,
)
STRONG = replace(RECIPE, augment=BatchAugment())
cpu_trainer = partial(Trainer, accelerator="cpu")


def network(drop_path_rate=0.2):
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224",
        img_size=16,
        patch_size=4,
        embed_dim=24,
        depth=2,
        num_heads=2,
        num_classes=2,
        global_pool="avg",
        drop_path_rate=drop_path_rate,
    )


def folder(path):
    made = RunFolder(path)
    made.checkpoints.mkdir(parents=True)
    return made


def run(data, recipe, **settings):
    model = network()
    return model, finetune(model, data, recipe, make_trainer=cpu_trainer, **settings)


def test_losses_are_those_of_soft_targets(data):
    scores = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, -2.0]])
    targets = torch.tensor([[0.9, 0.0, 0.1], [0.2, 0.8, 0.0]])
    probabilities = scores.sigmoid()
    per_class = -(targets * probabilities.log() + (1 - targets) * (1 - probabilities).log())
    expected = {
        "cross_entropy": -(targets * scores.log_softmax(dim=1)).sum(dim=1).mean(),
        "binary_cross_entropy": per_class.mean(),
    }
    for name, loss in expected.items():
        recipe = replace(RECIPE, loss=name)
        classifier = Classifier(model=network(), data=data, recipe=recipe, seed=0, config={})
        torch.testing.assert_close(classifier.loss(scores, targets), loss)
    with pytest.raises(UserError, match="loss must be one of 'cross_entropy', 'binary_cross_entropy', got"):
        replace(RECIPE, loss="hinge")


def test_it_learns_what_is_easy_and_writes_its_run(data, tmp_path):
    made = folder(tmp_path / "run")
    _, result = run(data, RECIPE, folder=made, config={"recipe": "test"})
    assert result.top1 >= 0.9
    assert result.top5 == 1.0
    assert result.details["best_top1"] >= result.top1
    assert {path.name for path in made.checkpoints.iterdir()} == {"best.ckpt", "last.ckpt"}
    assert torch.load(made.last, weights_only=True)["config"] == {"recipe": "test"}
    assert "val/top1" in (made.path / "metrics.csv").read_text()


def test_the_same_seed_gives_the_same_weights_whatever_the_global_generators_say(data):
    first, _ = run(data, STRONG, seed=3)
    torch.manual_seed(99)
    second, _ = run(data, STRONG, seed=3)
    third, _ = run(data, STRONG, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.head.weight, third.head.weight)


class StopAt(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        trainer.should_stop = trainer.global_step >= self.step


def stopping_trainer(callbacks, **settings):
    return cpu_trainer(callbacks=[*callbacks, StopAt(9)], **settings)


@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_an_interrupted_run_goes_on_to_the_same_weights(data, tmp_path, ema_decay):
    recipe = replace(STRONG, ema_decay=ema_decay)
    whole, expected = run(data, recipe)
    made = folder(tmp_path / "run")
    with pytest.raises(UserError, match="stopped at step 9 of 24; run it again to go on"):
        finetune(network(), data, recipe, folder=made, make_trainer=stopping_trainer)
    resumed, result = run(data, recipe, folder=made)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    assert result == expected


def test_accumulated_micro_batches_take_the_same_steps(data):
    weights = []
    for micro_batches in (1, 4):
        model = network(drop_path_rate=0.0)
        trainer = partial(cpu_trainer, accumulate_grad_batches=micro_batches)
        result = finetune(model, data, replace(RECIPE, epochs=2), make_trainer=trainer)
        weights.append(model.head.weight.detach())
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-5)
    assert result.top1 > 0


def test_layer_decay_reaches_the_optimizer(data):
    module = Classifier(model=network(), data=data, recipe=RECIPE, seed=0, config={})
    trainer = cpu_trainer(max_steps=24, max_epochs=-1, logger=False, enable_checkpointing=False)
    trainer.strategy.connect(module)
    module.trainer = trainer
    optimizer = module.configure_optimizers()["optimizer"]
    lr = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    peak = 3e-2 * 8 / 256
    assert lr[id(module.model.head.weight)] == pytest.approx(peak)
    assert lr[id(module.model.blocks[1].mlp.fc1.weight)] == pytest.approx(peak * 0.75)
    assert lr[id(module.model.pos_embed)] == pytest.approx(peak * 0.75**3)


def test_the_moving_average_is_what_is_scored(data):
    module = Classifier(model=network(), data=data, recipe=replace(RECIPE, ema_decay=0.9), seed=0, config={})
    start = module.model.head.weight.detach().clone()
    with torch.no_grad():
        module.model.head.weight += 1
    module.ema.update(module.model, step=5)
    torch.testing.assert_close(module.scored.head.weight, start + 0.1)
    assert not any(parameter.requires_grad for parameter in module.scored.parameters())


def test_a_finished_run_tells_its_result_again(data, tmp_path):
    made = folder(tmp_path / "run")
    recipe = replace(RECIPE, ema_decay=0.5)
    trained, result = run(data, recipe, folder=made)
    again, told = run(data, recipe, folder=made)
    assert told == result
    assert all(torch.equal(a, b) for a, b in zip(trained.parameters(), again.parameters(), strict=True))


def test_no_epochs_score_the_network_as_it_is(data):
    trained, result = run(data, RECIPE)
    before = [parameter.clone() for parameter in trained.parameters()]
    # Nothing is taken from the training split, however few samples it has.
    recipe = replace(RECIPE, epochs=0, batch_size=512)
    scored = finetune(trained, data, recipe, make_trainer=cpu_trainer)
    assert (scored.top1, scored.top5) == (result.top1, result.top5)
    assert all(torch.equal(a, b) for a, b in zip(before, trained.parameters(), strict=True))
    with pytest.raises(UserError, match="epochs must be at least 0, got -1"):
        replace(RECIPE, epochs=-1)


class BatchSizes(Callback):
    """How many samples come at once."""

    def __init__(self):
        self.training, self.validation = set(), set()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.training.add(len(batch["index"]))

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.validation.add(len(batch["index"]))


def test_evaluation_takes_no_more_at_once_than_training(data):
    sizes = BatchSizes()
    trainer = partial(cpu_trainer, accumulate_grad_batches=2, callbacks=[sizes])
    finetune(network(), data, replace(RECIPE, epochs=1), make_trainer=trainer)
    assert sizes.training == sizes.validation == {4}


def test_a_val_split_that_cannot_be_read_is_told(data, tmp_path):
    for label in range(2):
        broken = tmp_path / f"class{label}" / "0.png"
        broken.parent.mkdir()
        broken.write_bytes(b"no picture")
    unreadable = replace(data, val_root=str(tmp_path))
    for epochs in (0, 1):
        with pytest.raises(UserError, match="no val sample could be read"):
            run(unreadable, replace(RECIPE, epochs=epochs))


class GradNorms(Callback):
    """Norms of the gradients the optimiser has used."""

    def __init__(self):
        self.seen = []

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        grads = [p.grad for p in pl_module.model.parameters() if p.grad is not None]
        if grads:
            self.seen.append(torch.nn.utils.get_total_norm(grads).item())


@pytest.mark.parametrize("limit", [None, 1e-3])
def test_gradients_are_clipped_as_the_recipe_says(data, limit):
    norms = GradNorms()
    recipe = replace(RECIPE, epochs=1, clip_grad=limit)
    finetune(network(), data, recipe, make_trainer=partial(cpu_trainer, callbacks=[norms]))
    assert norms.seen
    assert (max(norms.seen) <= 1.001e-3) == (limit is not None)


def test_what_cannot_be_trained_is_named(data):
    with pytest.raises(UserError, match=r"recipe.batch_size \(64\) must be .* training samples \(48\)"):
        run(data, replace(RECIPE, batch_size=64))
    unlabelled = replace(data, labels="none", val_root=None)
    with pytest.raises(UserError, match="48 of 48 samples have no label"):
        run(unlabelled, RECIPE)


@pytest.mark.parametrize(("split", "num"), [("train", 48), ("val", 16)])
def test_samples_without_label_are_counted(data, split, num):
    data.source(split).labels[:3] = -1
    with pytest.raises(UserError, match=rf"3 of {num} samples have no label: .*{split}"):
        run(data, RECIPE)


def test_what_is_frozen_stays_as_it_is_statistics_included(data):
    recipe = replace(RECIPE, trainable=["fc"], optim=replace(RECIPE.optim, layer_decay=None))
    model, _ = start_classifier("resnet18", data, recipe, start="checkpoint")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    finetune(model, data, recipe, make_trainer=cpu_trainer)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"fc.weight", "fc.bias"}
