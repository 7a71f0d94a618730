"""What the encoder tests share: small plans, and replays of SimMIM's golden cases."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from maskpre.checkpoints.names_simmim import Kind, pretraining_keys
from maskpre.encoders.base import Encoder
from maskpre.losses.pixel_l1 import PixelL1
from maskpre.masking.block_units import BlockUnitMasking
from maskpre.model import MaskedModel
from maskpre.objectives import Objective
from maskpre.ops.noise import GivenNoise
from maskpre.passes import Pass
from maskpre.predictors.linear import LinearPredictor
from maskpre.targets.pixels import PixelTarget
from maskpre.types import OUTPUT, Grid, MaskPlan, Step

GOLDEN = Path(__file__).parents[1] / "golden" / "simmim"


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def random_plan() -> Callable[..., MaskPlan]:
    """A plan with a random order of visible cells, as MAE's."""

    def make(grid: Grid, *, batch: int, num_visible: int, seed: int = 0) -> MaskPlan:
        scores = torch.rand(batch, grid.num_cells, generator=torch.Generator().manual_seed(seed))
        return MaskPlan.from_order(scores.argsort(dim=1), num_visible=num_visible, grid=grid)

    return make


def simmim_model(encoder: Encoder, *, ratio: float, unit_size: int, region: str) -> MaskedModel:
    """SimMIM in float64 round an encoder; pictures in the batch are taken as normalised."""
    target = PixelTarget(grid=encoder.spec.out_grid, in_chans=3)
    return MaskedModel(
        inputs=nn.Identity(),
        encoder=encoder,
        maskings={"main": BlockUnitMasking(grid=encoder.spec.grid, ratio=ratio, unit_size=unit_size)},
        predictors={"main": LinearPredictor(encoder=encoder.spec, out_dim=target.dim, region=region)},
        targets={"main": target},
        passes={"student": Pass(predictors=("main",))},
        taps={"student": OUTPUT},
        objectives={"main": Objective(predictor="main", target="main", loss=PixelL1(in_chans=3))},
    ).double()


@pytest.fixture
def simmim() -> Callable[..., MaskedModel]:
    return simmim_model


@dataclass
class Golden:
    """One golden pre-training case in float64, ready to be run with an encoder."""

    sizes: dict
    loss: float
    weights: dict[str, Tensor]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    kind: Kind

    def model(self, encoder: Encoder, region: str) -> MaskedModel:
        """SimMIM round the encoder, with the case's weights."""
        model = simmim_model(
            encoder, ratio=self.sizes["mask_ratio"], unit_size=self.sizes["mask_patch_size"], region=region
        )
        model.load_state_dict(pretraining_keys(self.weights, kind=self.kind))
        return model

    def run(self, model: MaskedModel) -> Step:
        """One step on the case's pictures under the case's masks."""
        grid = model.encoder.spec.grid
        cells = self.sizes["mask_patch_size"] // grid.stride[0]
        masked = self.inputs["mask"][:, ::cells, ::cells].flatten(1)
        # The units with the smallest noise are hidden.
        noise = GivenNoise({"mask": 1.0 - masked.double()})
        step = model({"image": self.inputs["imgs"].double()}, noise=noise, progress=0.0)
        assert torch.equal(step.plans["student"].mask, self.inputs["mask"].flatten(1).bool())
        return step

    def gradients(self) -> dict[str, Tensor]:
        """The official gradients under the model's names."""
        found = {
            name.removeprefix("grad/"): value
            for name, value in self.outputs.items()
            if name.startswith("grad/")
        }
        return pretraining_keys(found, kind=self.kind)


@pytest.fixture
def golden() -> Callable[[str], Golden]:
    def load(case: str) -> Golden:
        folder = GOLDEN / case
        record = json.loads((folder / "case.json").read_text())
        tensors = [load_file(folder / f"{part}.safetensors") for part in ("weights", "inputs", "outputs")]
        sizes = record["hyperparameters"]
        return Golden(sizes, record["loss"], *tensors, kind=sizes["type"])

    return load


@pytest.fixture
def check_golden() -> Callable[[Golden, Encoder, str], Step]:
    """Holds loss, latent and gradients against the official ones."""

    def check(case: Golden, encoder: Encoder, region: str) -> Step:
        model = case.model(encoder, region)
        step = case.run(model)
        step.total.backward()
        assert step.total.item() == pytest.approx(case.loss, rel=1e-6)
        close(step.outputs["student"].tokens, case.outputs["latent"].flatten(2).transpose(1, 2))
        gradients = case.gradients()
        assert len(gradients) >= 10
        for name, value in gradients.items():
            close(model.get_parameter(name).grad, value)
        return step

    return check


def close(found: Tensor, expected: Tensor) -> None:
    """Equal to 5e-5 of the largest expected value."""
    scale = expected.abs().max().item()
    torch.testing.assert_close(found, expected.double(), rtol=0.0, atol=5e-5 * scale)
