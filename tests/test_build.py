"""Options that are valid alone but not together are refused before anything runs, with what would do."""

import pytest
import torch
from omegaconf import OmegaConf

from maskpre.build import Assembly, build_model
from maskpre.config import compose
from maskpre.errors import ConfigError

SIZES = ["data.image_size=64", "data.batch_size=64", "epochs=10"]
IMPOSSIBLE = {
    "experiment=spark data.image_size=72": [
        "encoder: img_size (72) must be a multiple of the network's stride (32); nearest: 64 or 96"
    ],
    "experiment=spark masking=blocks masking.unit_size=8": [
        "masking: unit_size (8) must be a multiple of the encoder's cells (32 pixels) and divide the picture "
        "(64 pixels); nearest: 32"
    ],
    "experiment=spark masking=variable_ratio masking.high=0.75": [
        "leaves differing numbers of cells visible in pass 'student', but 'encoder' needs the same number"
    ],
    "experiment=spark encoder.name=seresnet18": [
        "encoder: layer 'layer1.0.se' averages over the whole picture",
        "choose a network without it, or layer masking (encoder.border=neighbours)",
    ],
    "experiment=spark encoder.name=resnet18 encoder.options.norm_layer=groupnorm": [
        "encoder: layer 'bn1' is a GroupNorm, which sparse convolution doesn't know: it knows convolutions"
    ],
    "experiment=spark encoder=vit": [
        "UNetDecoder reads feature maps of several strides, and the encoder gives none; use encoder=resnet"
    ],
    "encoder.embed_dim=192 encoder.num_heads=5": [
        "encoder: num_heads (5) must divide embed_dim (192); nearest: 4 or 6"
    ],
    "predictor.embed_dim=96 predictor.num_heads=5": [
        "predictor: num_heads (5) must divide embed_dim (96); nearest: 4 or 6"
    ],
    "predictor.embed_dim=98 predictor.num_heads=2": [
        "predictor: a 2-D sin-cos table needs a width divisible by 4, got 98; nearest: 96 or 100"
    ],
    "encoder.name=vit_tiny_patch16_225": ["encoder: timm has no model 'vit_tiny_patch16_225'"],
    "encoder.name=swin_tiny_patch4_window7_224": [
        "encoder: ",
        "swin_tiny_patch4_window7_224",
        "VisionTransformer",
    ],
    "encoder.patch_size=8 data.image_size=60": [
        "encoder: img_size (60) must be a multiple of the patch size (8, 8); nearest: 56 or 64"
    ],
    "encoder.img_size=32": ["encoder: takes pictures of (32, 32), data.image_size makes them (64, 64)"],
    "encoder.in_chans=1": ["encoder: takes 1 channels, view 'image' of pass 'student' has 3"],
    "target.in_chans=1": ["targets.main: reads 1 channels of view 'image', which has 3"],
    "target.view=imag": [
        "targets.main: reads view 'imag', the inputs make only image; did you mean 'image'?"
    ],
    "loss=pixel_l1 loss.in_chans=4": [
        "objectives.main.loss: counts 4 channels per pixel, target 'main' has 3"
    ],
    "target=pixels_window_norm target.window=4": ["target: window must be odd and at least 3 pixels, got 4"],
    "predictor=linear": [
        "predictor: LinearPredictor predicts only where the encoder gives tokens, but the encoder drops",
        "use predictor=mae_decoder, encoder.hidden=replace",
    ],
    "masking.ratio=1.5": ["masking: mask ratio must be between 0 and 1, got 1.5"],
    "encoder.patch_size=8 masking.ratio=0.999": ["masking: mask ratio 0.999 leaves 0 of 64 cells visible"],
    "encoder.patch_size=8 masking=grid masking.period=3": [
        "masking: period must be at least 2 and divide (8, 8), got 3"
    ],
    "encoder.patch_size=8 masking=blocks masking.unit_size=20": [
        "masking: unit_size (20) must be a multiple of the encoder's cells (8 pixels) and divide the picture "
        "(64 pixels); nearest: 16 or 32"
    ],
    "encoder.patch_size=8 masking=blocks masking.unit_size=4": [
        "masking: unit_size (4)",
        "(8 pixels)",
        "nearest: 8",
    ],
    "masking=variable_ratio masking.low=0.9": ["masking: low (0.9) must be less than high (0.9)"],
    "masking=variable_ratio encoder=simmim_vit encoder.hidden=drop": [
        "masking: VariableRatioMasking leaves differing numbers of cells visible in pass 'student', but "
        "'encoder' needs the same number in every sample; use encoder=vit"
    ],
    "masking=variable_ratio encoder=resnet predictor=unet_decoder": [
        "but 'encoder' needs the same number",
        "but predictor 'main' (UNetDecoder) needs the same number in every sample; use predictor=mae_decoder",
    ],
    "data.mean=[0.5]": ["data: data.mean has 1 values, data.channels is 3"],
    "data.std=[0.2,0,0.2]": ["inputs: std must be positive"],
    "data.transform.scale=[0.9,0.2]": ["data.transform: crop scale must be two rising shares in (0, 1]"],
    "data.transform.size=32": ["data.transform.size: makes pictures of 32 pixels, data.image_size is 64"],
    "data.batch_size=66 trainer.accumulate_grad_batches=4": [
        "data.batch_size: 66 samples per step can't be shared by 4 (trainer.devices * num_nodes * "
        "accumulate_grad_batches); nearest: 64 or 68"
    ],
    "data.batch_size=64 trainer.devices=[0,1,2]": ["can't be shared by 3", "nearest: 63 or 66"],
    "attention=triton trainer.accelerator=cpu": [
        "attention: triton needs a GPU, but trainer.accelerator is cpu; use auto"
    ],
    "trainer=fsdp2 trainer.devices=2 trainer.precision=16-mixed": [
        "trainer.precision: 16-mixed scales losses, which divided weights (trainer=fsdp2) don't follow"
    ],
    "trainer.precision=16-mixed trainer.accelerator=cpu": [
        "trainer.precision: 16-mixed needs a GPU, but trainer.accelerator is cpu; use bf16-mixed or 32-true"
    ],
    "trainer.precision=16-mixed trainer.gradient_clip_val=1.0": [
        "optim.implementation: fused can't clip gradients (trainer.gradient_clip_val=1.0) under "
        "trainer.precision=16-mixed; use optim.implementation=foreach"
    ],
    "data.batch_size=0": ["data.batch_size: must be at least 1, got 0"],
    "trainer.accumulate_grad_batches=0": ["trainer.accumulate_grad_batches: must be at least 1, got 0"],
    "optim.base_lr=-1": ["optim: base_lr (-1) must be greater than 0"],
    "optim.schedule.warmup_epochs=40": [
        "optim.schedule: warmup_epochs (40) must be at least 0 and less than the epochs of the run (10)"
    ],
    "epochs=0": ["epochs: must be greater than 0, got 0"],
    "objectives.main.predictor=mian": [
        "objectives.main.predictor: there is no predictor 'mian', only main; did"
    ],
    "objectives.main.region='decode&maskd'": [
        "objectives.main.region: there is no region 'maskd', only masked, visible, all, decode, and several "
        "joined by &; did you mean 'masked'?"
    ],
    "passes.student.view=imag": [
        "passes.student.view: there is no view 'imag', only image; did you mean 'image'?"
    ],
    "passes.student.network=techer": ["passes.student.network: there is no network 'techer', only encoder"],
    "passes.student.masking=null": ["objectives.main.plan: there is no pass with a plan 'student'"],
    "encoder=swin encoder.depths=[2,2] encoder.num_heads=[3]": [
        "encoder: depths ([2, 2]) and num_heads ([3]) must have one entry"
    ],
    "encoder=swin encoder.patch_size=4 data.image_size=72": [
        "encoder: 3 stages halve the grid of (18, 18) patches between stages; its sides must be"
    ],
}


@pytest.mark.parametrize(("overrides", "messages"), IMPOSSIBLE.items())
def test_impossible_options_are_refused(
    overrides: str, messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Under its interpreter Triton would run anywhere.
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ConfigError) as caught:
        compose([*SIZES, *overrides.split()])
    for message in messages:
        assert message in str(caught.value)


def test_all_of_them_are_told_at_once() -> None:
    overrides = "masking.ratio=2 target=pixels_window_norm target.window=2 data.batch_size=63 epochs=-1"
    with pytest.raises(ConfigError) as caught:
        compose([*overrides.split(), "trainer.accumulate_grad_batches=2", "optim.weight_decay=-1"])
    assert {problem.path for problem in caught.value.problems} == {
        "masking",
        "target",
        "data.batch_size",
        "epochs",
        "optim",
    }


def test_mistyped_values_do_not_hide_them() -> None:
    with pytest.raises(ConfigError) as caught:
        compose(["optim.eps=tiny", "masking.ratio=2", "epochs=-1"])
    assert {problem.path for problem in caught.value.problems} == {"optim.eps", "masking", "epochs"}


def test_nothing_is_drawn_or_allocated_to_find_out(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.random.get_rng_state()
    compose(["experiment=colormae"])
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_bug_in_a_constructor_is_no_refusal() -> None:
    entry = OmegaConf.create({"_target_": "collections.Counter", "_args_": [5]})
    with pytest.raises(Exception, match="not iterable"):
        Assembly().part(entry)


def test_a_part_names_where_it_stands_not_where_it_was_reached_from() -> None:
    cfg = compose([])
    cfg.masking.ratio = 0.0
    with pytest.raises(ConfigError) as caught:
        build_model(cfg)
    assert [problem.path for problem in caught.value.problems] == ["masking"]
