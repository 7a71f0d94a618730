"""MaskAlign beyond its golden cases: what is run, what is trained, what is refused."""

import pytest
import torch

from maskpre.build import build_model
from maskpre.config import compose
from maskpre.errors import ConfigError
from maskpre.ops.noise import KeyedNoise

SIZES = ["encoder.embed_dim=16", "encoder.depth=3", "encoder.num_heads=2"]
UNMADE = "teacher.weights=null"
TEACHER = [UNMADE, "teacher.embed_dim=16", "teacher.depth=3", "teacher.num_heads=2", "target.layers=top2"]


def model_of(*overrides):
    torch.manual_seed(0)
    return build_model(compose(["experiment=maskalign", *SIZES, *TEACHER, *overrides]))


def step_of(model):
    image = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    batch = {"image": image, "index": torch.arange(2), "epoch": torch.zeros(2, dtype=torch.int64)}
    return model(batch, noise=KeyedNoise(0, batch["epoch"], batch["index"]), progress=0.0)


def test_the_teacher_looks_once_and_makes_mask_and_target() -> None:
    model = model_of()
    looks = []
    model.teachers["teacher"].network.register_forward_hook(lambda *_: looks.append(1))
    step = step_of(model)
    assert len(looks) == 1
    assert list(step.outputs) == ["teacher", "student"]
    taps = model.taps["teacher"]
    assert (taps.hidden, taps.attention, taps.output) == ({2, 3}, {3}, False)


def test_random_masks_ask_for_no_attention() -> None:
    assert not model_of("masking=random").taps["teacher"].attention


@pytest.mark.parametrize("layers", ["top1", "linear_decay", "mid1"])
@pytest.mark.parametrize("fusion", ["linear", "sum", "simple"])
def test_everything_that_is_trained_gets_a_gradient(fusion, layers) -> None:
    model = model_of(f"predictor.fusion={fusion}", f"target.layers={layers}")
    step_of(model).total.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert not any(parameter.requires_grad for parameter in model.encoder.norm.parameters())
    assert model.encoder.blocks[2].attn.qkv.weight.requires_grad == (fusion != "simple" or layers != "mid1")


def test_the_unread_norm_of_the_student_never_runs() -> None:
    model = model_of()
    ran = []
    model.encoder.norm.register_forward_hook(lambda *_: ran.append(1))
    step_of(model)
    assert not ran


REFUSED = {
    "encoder.depth=2": "fusion=linear needs an encoder as deep as the teacher, but they have 2 and 3 layers",
    "teacher.patch_size=16": r"the pass 'teacher' gives (4, 4) cells, the student has (8, 8)",
    "teacher=none": "reads the pass 'teacher', but only student run",
    "teacher=clip teacher.weights=clip.pt": "teacher: clip.pt is no file",
    "teacher.name=resnet18 teacher.patch_size=null": "teacher: timm can't build 'resnet18'",
    "target=pixels": "target.layers: PixelTarget has no 'layers'",
    "encoder.class_token=false": "counts the class token|has no class token",
    "target.layers=top9": "target: layers='top9' names none or others than the layers 1 to 3",
}


@pytest.mark.parametrize(("overrides", "message"), REFUSED.items())
def test_what_cannot_go_together_is_told_before_training(overrides, message) -> None:
    chosen = overrides.split()
    replaced = {one.partition("=")[0] for one in chosen}
    teacher = [one for one in TEACHER if one.partition(".")[0] not in replaced]
    with pytest.raises(ConfigError) as caught:
        compose(["experiment=maskalign", *SIZES, *teacher, *chosen])
    assert any(part in str(caught.value) for part in message.split("|"))


def test_a_convnet_gives_no_attention() -> None:
    sizes = [f"teacher.{key}=null" for key in ("patch_size", "embed_dim", "depth", "num_heads")]
    with pytest.raises(ConfigError, match="has no class token whose attention can be read"):
        compose(["experiment=maskalign", *SIZES, UNMADE, "teacher.name=resnet18", *sizes])


def test_colour_masks_go_with_teacher_features_and_attention_with_pixels() -> None:
    for overrides in (
        ["experiment=maskalign", *TEACHER, "masking=color"],
        ["masking=attentive", "teacher=timm"],
    ):
        model = build_model(compose([*overrides, *SIZES]))
        step = step_of(model)
        step.total.backward()
        assert step.total.isfinite()
