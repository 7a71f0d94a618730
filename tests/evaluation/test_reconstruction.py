import numpy as np
import pytest
import torch

from maskpre.build import build_model
from maskpre.config import compose
from maskpre.errors import UserError
from maskpre.evaluation.reconstruction import HIDDEN_GREY, reconstruct, reconstruction_grid
from maskpre.model import MaskedModel
from maskpre.ops.noise import KeyedNoise
from maskpre.targets.base import Target
from maskpre.types import Located, Step, gather_tokens

SMALL = ["epochs=800", "data.image_size=32", "encoder.embed_dim=24", "encoder.depth=1", "encoder.num_heads=3"]
DECODER = ["predictor.embed_dim=16", "predictor.depth=1", "predictor.num_heads=2"]
MODELS = {
    "raw": ["experiment=mae", "target=pixels", *SMALL, *DECODER],
    "patch": ["experiment=mae", *SMALL, *DECODER],
    "window": ["experiment=mae", "target=pixels_window_norm", "target.window=9", *SMALL, *DECODER],
    "replace": ["experiment=simmim", *SMALL],
}
CLIPS = ["experiment=videomae", "data.num_frames=8", "encoder.patch_size=8", *SMALL, *DECODER]


def _step(model: MaskedModel) -> Step:
    image = torch.randint(
        0, 256, (3, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    batch = {"image": image, "index": torch.arange(3), "epoch": torch.zeros(3, dtype=torch.int64)}
    with torch.no_grad():
        return model(batch, noise=KeyedNoise(0, batch["epoch"], batch["index"]), progress=1.0)


def _hidden_pixels(step: Step) -> torch.Tensor:
    grid = step.plans["student"].mask.unflatten(1, (4, 4))
    return grid.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None].expand(-1, 3, -1, -1)


@pytest.mark.parametrize("name", MODELS)
def test_a_perfect_prediction_gives_the_original(name: str) -> None:
    model = build_model(compose(MODELS[name])).eval()
    step = _step(model)
    prediction, target = step.predictions["student"]["main"], model.targets["main"](step)
    ids = prediction.ids
    perfect = target.tokens.gather(1, ids[..., None].expand(-1, -1, target.tokens.shape[2]))
    step.predictions["student"]["main"] = Located(perfect, prediction.grid, ids, prediction.covers)
    made = reconstruct(step, model)
    assert torch.equal(made.original, step.batch["image"])
    assert torch.equal(made.completed, made.original)


@pytest.mark.parametrize("name", MODELS)
def test_visible_pixels_stay_and_hidden_ones_are_predicted(name: str) -> None:
    model = build_model(compose(MODELS[name])).eval()
    step = _step(model)
    made, hidden = reconstruct(step, model), _hidden_pixels(step)
    assert bool((made.masked[hidden] == HIDDEN_GREY).all())
    assert torch.equal(made.masked[~hidden], made.original[~hidden])
    assert torch.equal(made.completed[~hidden], made.original[~hidden])
    assert (made.completed[hidden] != made.original[hidden]).float().mean() > 0.5


@pytest.mark.parametrize("more", [["target.normalize=none"], [], ["target=pixels", "target.view=video"]])
def test_clips(more: list[str]) -> None:
    """A perfect prediction gives the clip back, of which a few frames are drawn side by side."""
    model = build_model(compose([*CLIPS, *more])).eval()
    pixels = torch.randint(0, 256, (2, 3, 8, 32, 32), dtype=torch.uint8)
    batch = {"video": pixels, "index": torch.arange(2), "epoch": torch.zeros(2, dtype=torch.int64)}
    with torch.no_grad():
        step = model(batch, noise=KeyedNoise(0, batch["epoch"], batch["index"]), progress=1.0)
    prediction, target = step.predictions["student"]["main"], model.targets["main"](step)
    perfect = gather_tokens(target.tokens, prediction.ids)
    step.predictions["student"]["main"] = Located(perfect, prediction.grid, prediction.ids)
    made = reconstruct(step, model)
    assert torch.equal(made.original, pixels)
    assert torch.equal(made.completed, pixels)
    frames = (made.masked == HIDDEN_GREY).all(dim=1).flatten(2).float().mean(dim=2)
    assert frames.unique().tolist() == [pytest.approx(12 / 16, abs=0.01)]
    assert reconstruction_grid(step, model, 2).shape == (20 + 2 * (64 + 4), 3 * 256 + 4 * 4, 3)


def test_units_smaller_than_predicted_cells() -> None:
    small = [item for item in SMALL if not item.startswith("encoder.")]
    overrides = ["experiment=simmim", "encoder=swin", *small, "encoder.embed_dim=24", "masking.unit_size=4"]
    model = build_model(compose([*overrides, "encoder.depths=[1,1]", "encoder.num_heads=[2,4]"])).eval()
    step = _step(model)
    made = reconstruct(step, model)
    hidden = step.plans["student"].mask.unflatten(1, (8, 8)).repeat_interleave(4, 1).repeat_interleave(4, 2)
    assert torch.equal((made.masked == HIDDEN_GREY).all(dim=1) | ~hidden, torch.ones_like(hidden))
    visible = ~hidden[:, None].expand_as(made.original)
    assert torch.equal(made.completed[visible], made.original[visible])


def test_cells_nobody_predicted_stay_grey() -> None:
    model = build_model(compose(MODELS["patch"])).eval()
    step = _step(model)
    prediction = step.predictions["student"]["main"]
    first = Located(prediction.tokens[:, :1], prediction.grid, prediction.ids[:, :1])
    step.predictions["student"]["main"] = first
    made, hidden = reconstruct(step, model), _hidden_pixels(step)
    grey = (made.completed[hidden] == HIDDEN_GREY).float().mean().item()
    assert grey > 0.9 * 11 / 12


def test_the_grid_is_an_enlarged_picture_per_cell() -> None:
    model = build_model(compose(MODELS["patch"])).eval()
    step = _step(model)
    picture = reconstruction_grid(step, model, 2)
    side = 160
    assert picture.dtype == np.uint8
    assert picture.shape == (20 + 2 * (side + 4), 3 * side + 4 * 4, 3)
    first = picture[20 : 20 + side, 4 : 4 + side][::5, ::5]
    assert np.array_equal(first, step.batch["image"][0].permute(1, 2, 0).numpy())
    assert (picture[:20] != 255).any()


class NoPicture(Target):
    def forward(self, step: Step) -> Located:
        raise AssertionError("not needed")


def test_targets_that_are_no_pictures_are_named() -> None:
    model = build_model(compose(MODELS["patch"])).eval()
    step = _step(model)
    model.targets["main"] = NoPicture(grid=model.encoder.spec.grid, dim=3, reads={})
    with pytest.raises(UserError, match=r"nothing to draw: main \(NoPicture\)"):
        reconstruct(step, model)
