"""A step under a ragged plan has the loss and gradients of all its cells, each sample run alone."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from maskpre.encoders.vit import ViT
from maskpre.losses.mse import MeanSquaredError
from maskpre.masking.base import Masking
from maskpre.masking.variable_ratio import VariableRatioMasking
from maskpre.model import MaskedModel
from maskpre.objectives import Objective
from maskpre.ops.noise import KeyedNoise
from maskpre.passes import Pass
from maskpre.predictors.linear import LinearPredictor
from maskpre.predictors.mae_decoder import MAEDecoder
from maskpre.targets.pixels import PixelTarget
from maskpre.types import OUTPUT, Located, MaskPlan, Step

SIZES = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2}
BATCH = 4
WAYS = [
    ("mae", "drop", "masked"),
    ("mae", "drop", "visible"),
    ("mae", "drop", "all"),
    ("mae", "replace", "masked"),
    ("linear", "replace", "masked"),
    ("linear", "replace", "all"),
    ("linear", "drop", "visible"),
    ("linear", "drop", "visible+cls"),
    ("linear", "drop", "all"),
]


class Alone(Masking):
    """Another masking's plan of one sample, with equal counts."""

    def __init__(self, plan: MaskPlan, sample: int) -> None:
        super().__init__(grid=plan.grid)
        assert plan.lengths is not None
        num_visible = int(plan.lengths[sample])
        hidden = plan.mask[sample].nonzero()[:, 0]
        order = torch.cat([plan.keep[sample, :num_visible], hidden])[None]
        self.plan = MaskPlan.from_order(order, num_visible=num_visible, grid=plan.grid)

    def forward(self, step: Step) -> MaskPlan:
        return self.plan


class ClassTarget(PixelTarget):
    """Pixels, and a constant for the class token."""

    def at(self, step: Step, like: Located) -> Located:
        pixels = super().at(step, like)
        return replace(pixels, prefix=torch.ones_like(pixels.tokens[:, :1]))


def make(predictor: str, hidden: str, region: str) -> MaskedModel:
    torch.manual_seed(0)
    encoder = ViT(name="vit_tiny_patch16_224", hidden=hidden, **SIZES)
    target = ClassTarget(grid=encoder.spec.out_grid, in_chans=3)
    given = {"encoder": encoder.spec, "out_dim": target.dim, "region": region}
    made = (
        LinearPredictor(**given)
        if predictor == "linear"
        else MAEDecoder(**given, embed_dim=16, depth=1, num_heads=2)
    )
    model = MaskedModel(
        inputs=nn.Identity(),
        encoder=encoder,
        maskings={"main": VariableRatioMasking(grid=encoder.spec.grid, low=0.3, high=0.8)},
        predictors={"main": made},
        targets={"main": target},
        passes={"student": Pass(predictors=("main",))},
        taps={"student": OUTPUT},
        objectives={
            "main": Objective(predictor="main", target="main", loss=MeanSquaredError(), region=region)
        },
    )
    for weight in model.parameters():
        if weight.requires_grad:
            nn.init.normal_(weight, std=0.3)
    return model.double()


def run(model: MaskedModel, images: Tensor) -> Step:
    index = torch.arange(len(images))
    noise = KeyedNoise(0, epoch=torch.zeros_like(index), index=index)
    return model({"image": images, "index": index}, noise=noise, progress=0.0)


def weights(model: MaskedModel) -> list[Tensor]:
    return [weight for weight in model.parameters() if weight.requires_grad]


def gradients(loss: Tensor, model: MaskedModel) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, weights(model), allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize(("predictor", "hidden", "region"), WAYS)
def test_a_step_is_that_of_its_samples(predictor: str, hidden: str, region: str) -> None:
    model, images = make(predictor, hidden, region), torch.randn(BATCH, 3, 16, 16, dtype=torch.float64)
    step = run(model, images)
    plan = step.plans["student"]
    assert plan.lengths is not None
    assert len(plan.lengths.unique()) > 1
    total, count = torch.zeros((), dtype=torch.float64), 0
    for sample in range(BATCH):
        model.maskings["main"] = Alone(plan, sample)
        single = run(model, images[sample : sample + 1])
        tokens = {"masked": 16 - int(plan.lengths[sample]), "all": 16}.get(region, int(plan.lengths[sample]))
        if (region, hidden, predictor) == ("all", "drop", "linear"):
            tokens = int(plan.lengths[sample])
        tokens += region.endswith("+cls")
        total, count = total + single.total * tokens, count + tokens
    torch.testing.assert_close(step.total, total / count, rtol=1e-10, atol=0.0)
    for found, expected in zip(gradients(step.total, model), gradients(total / count, model), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
