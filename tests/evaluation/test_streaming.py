import json
from functools import partial
from pathlib import Path

import hydra
import pytest
import timm
import torch
from lightning import Trainer
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from maskpre.evaluation.finetune import finetune
from maskpre.evaluation.streaming import FrozenClassifier

CASE = Path(__file__).parents[1] / "golden" / "mae" / "linprobe_cls"
CONFIG = Path(__file__).parents[2] / "configs" / "probe" / "linear.yaml"


def streaming_probe(**changes):
    root = OmegaConf.create({"data": {"image_size": 16}, "probe": OmegaConf.load(CONFIG)})
    return hydra.utils.instantiate(OmegaConf.merge(root, {"probe": changes}).probe)


def test_the_probe_is_the_official_one():
    settings = json.loads((CASE / "case.json").read_text())
    sizes = settings["hyperparameters"]
    weights = {name: value.double() for name, value in load_file(CASE / "weights.safetensors").items()}
    inputs, expected = (load_file(CASE / f"{part}.safetensors") for part in ("inputs", "outputs"))
    encoder = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=sizes["img_size"],
        patch_size=sizes["patch_size"],
        embed_dim=sizes["embed_dim"],
        depth=sizes["depth"],
        num_heads=sizes["num_heads"],
        num_classes=0,
        global_pool="",
    )
    encoder.load_state_dict({name: value for name, value in weights.items() if not name.startswith("head.")})
    classifier = streaming_probe().classifier(encoder, num_classes=sizes["num_classes"], seed=0).double()
    classifier.head.load_state_dict(
        {name.removeprefix("head."): value for name, value in weights.items() if name.startswith("head.")}
    )
    images = inputs["imgs"].double()
    close = partial(torch.testing.assert_close, rtol=5e-5, atol=5e-6)
    close(classifier.eval()(images), expected["logits"].double())
    logits = classifier.train()(images)
    close(logits, expected["logits_train"].double())
    loss = cross_entropy(logits, inputs["labels"])
    assert loss.item() == pytest.approx(settings["loss"], rel=1e-6)
    loss.backward()
    norm, linear = classifier.head
    close(linear.weight.grad, expected["grad/head.1.weight"].double())
    close(linear.bias.grad, expected["grad/head.1.bias"].double())
    close(norm.running_mean, expected["running_mean_after"].double())
    close(norm.running_var, expected["running_var_after"].double())


def test_only_the_head_is_trained(data):
    encoder = timm.create_model("vit_tiny_patch16_224", img_size=16, depth=1, num_classes=0, global_pool="")
    before = [parameter.clone() for parameter in encoder.parameters()]
    optim = {"base_lr": 3000.0, "schedule": {"warmup_epochs": 0}}
    probe = streaming_probe(pool="avg", recipe={"epochs": 5, "batch_size": 8, "optim": optim})
    classifier = probe.classifier(encoder, num_classes=2, seed=0)
    start = classifier.head[1].weight.detach().clone()
    result = finetune(classifier, data, probe.recipe, make_trainer=partial(Trainer, accelerator="cpu"))
    assert result.top1 >= 0.9
    assert not torch.equal(classifier.head[1].weight, start)
    assert all(torch.equal(a, b) for a, b in zip(before, encoder.parameters(), strict=True))


def test_the_encoder_stays_in_evaluation_mode():
    encoder = timm.create_model("vit_tiny_patch16_224", img_size=16, depth=1, num_classes=0, drop_rate=0.5)
    classifier = FrozenClassifier(encoder=encoder, head=torch.nn.Dropout(0.5), pool="avg")
    classifier.train()
    assert classifier.head.training
    assert not any(module.training for module in encoder.modules())
