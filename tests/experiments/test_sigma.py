"""SIGMA as a whole, on clips: who learns from what, its teachers, and its other loss."""

import pytest
import torch
from torch.nn.functional import mse_loss

from maskpre.build import build_model
from maskpre.config import compose
from maskpre.errors import ConfigError
from maskpre.ops.noise import KeyedNoise
from maskpre.targets.features import normalize_features
from maskpre.types import Grid

SIZES = [
    "data.image_size=32",
    "data.num_frames=4",
    "encoder.embed_dim=32",
    "encoder.depth=1",
    "encoder.num_heads=2",
    "predictor.embed_dim=16",
    "predictor.depth=1",
    "masking.spatial.ratio=0.75",
]
CLUSTERS = ["target.num_prototypes=8"]
TEACHER = [
    "teacher=frames",
    "teacher.teacher.embed_dim=24",
    "teacher.teacher.depth=1",
    "teacher.teacher.num_heads=2",
]
FEATURES = [
    "target@target.values=features",
    "target.values.normalize=tokens",
    "target.dim=null",
    "target.hidden_dims=[]",
]


def make(*overrides):
    torch.manual_seed(0)
    return build_model(compose(["experiment=sigma", *SIZES, *overrides]))


def run(model):
    generator = torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (3, 3, 4, 32, 32), dtype=torch.uint8, generator=generator)
    batch = {"video": video, "index": torch.arange(3), "epoch": torch.zeros(3, dtype=torch.int64)}
    return model(batch, noise=KeyedNoise(0, batch["epoch"], batch["index"]), progress=0.0)


def reached(loss, model):
    """Parts that a loss gives gradients."""
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    weights = [model.get_parameter(name) for name in names]
    found = torch.autograd.grad(loss, weights, allow_unused=True, retain_graph=True)
    pairs = zip(names, found, strict=True)
    return {
        ".".join(name.split(".")[:3]).split(".weight")[0] for name, gradient in pairs if gradient is not None
    }


@pytest.fixture(scope="module")
def pixels():
    model = make(*CLUSTERS, "target.hidden_dims=[16,16]")
    return model, run(model)


@pytest.fixture(scope="module")
def taught():
    model = make(*CLUSTERS, *TEACHER, *FEATURES)
    return model, run(model)


def test_either_term_teaches_its_own_side(pixels) -> None:
    model, step = pixels
    metrics = step.metrics["main"]
    torch.testing.assert_close(step.total, metrics["target_loss"] + metrics["predicted_loss"])
    of_target = reached(metrics["target_loss"], model)
    of_prediction = reached(metrics["predicted_loss"], model)
    assert of_target == {"targets.main.prototypes", "targets.main.projection"}
    assert all(name.startswith(("encoder.", "predictors.main.")) for name in of_prediction)
    assert {"encoder.patch_embed.proj", "predictors.main.pred", "predictors.main.mask_token"} <= of_prediction
    everything = {
        ".".join(name.split(".")[:3]).split(".weight")[0]
        for name, p in model.named_parameters()
        if p.requires_grad
    }
    assert of_target | of_prediction == everything


def test_all_hidden_tubelets_of_the_batch_are_assigned(pixels) -> None:
    model, step = pixels
    prediction = step.predictions["student"]["main"]
    assert prediction.grid == Grid((2, 4, 4), (2, 8, 8))
    assert prediction.tokens.shape == (3, 24, 64)
    values = model.targets["main"](step).tokens.gather(1, prediction.ids[..., None].expand(-1, -1, 384))
    shares = model.targets["main"].loss.assign(
        model.targets["main"].compare(prediction.tokens, values)[1], None
    )
    torch.testing.assert_close(shares.sum(dim=(0, 1)), torch.full((8,), 3 * 24 / 8), rtol=0.1, atol=0.0)


def test_features_of_frames_are_targets(taught) -> None:
    model, step = taught
    teacher = model.teachers["teacher"].teacher
    frames = step.views["video"][:, :, ::2].transpose(1, 2).flatten(0, 1)
    tokens = teacher(frames).tokens.unflatten(0, (3, 2)).flatten(1, 2)
    torch.testing.assert_close(model.targets["main"](step).tokens, normalize_features(tokens, "tokens"))
    assert reached(step.metrics["main"]["target_loss"], model) == {"targets.main.prototypes"}
    assert not any(name.startswith("teachers") for name in model.state_dict())


def test_distances_to_features_need_no_clusters() -> None:
    """The authors' loss_func L2."""
    overrides = [*SIZES, *TEACHER, "target=features", "target.normalize=tokens"]
    model = build_model(compose(["experiment=videomae", *overrides]))
    step = run(model)
    prediction = step.predictions["student"]["main"]
    wanted = model.targets["main"](step).tokens.gather(1, prediction.ids[..., None].expand(-1, -1, 24))
    torch.testing.assert_close(step.total, mse_loss(prediction.tokens, wanted))


def test_an_unlike_teacher_is_refused() -> None:
    unlike = [*CLUSTERS, *TEACHER, *FEATURES, "teacher.teacher.patch_size=16"]
    with pytest.raises(
        ConfigError, match=r"the pass 'teacher' gives \(2, 2, 2\) cells, the student has \(2, 4, 4\)"
    ):
        make(*unlike)
    run(make(*unlike, "teacher.map_size=4"))
