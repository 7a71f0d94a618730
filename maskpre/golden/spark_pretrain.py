"""Pre-training steps of SparK (Tian et al., arXiv 2301.03580)."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from maskpre.checkpoints.names_spark import model_names, pretraining_keys
from maskpre.golden.case import CannotReplayError, Case, Tensors, parse
from maskpre.golden.compare import Replay
from maskpre.golden.pretraining import (
    build,
    experiment,
    gradients,
    load_strictly,
    official_gradients,
    take_step,
)
from maskpre.model import MaskedModel
from maskpre.ops.patchify import unpatchify
from maskpre.types import Step

DENSIFY_NORMS = {"bn": "batch", "ln": "layer"}


@dataclass
class ResNetSettings:
    """Arguments of a ResNet."""

    block: str
    layers: list[int]
    channels: list[int]
    drop_path_rate: float = 0.0

    def overrides(self) -> list[str]:
        """The encoder of these sizes; CannotReplayError for an unknown block."""
        names = {"basic": "resnet18", "bottleneck": "resnet50"}
        if self.block not in names:
            raise CannotReplayError(f"encoder.block must be one of {', '.join(names)}, got {self.block!r}")
        options = f"{{layers: {self.layers}, channels: {self.channels}, output_stride: 32}}"
        return ["encoder=resnet", f"encoder.name={names[self.block]}", f"encoder.options={options}"]


@dataclass
class ConvNeXtSettings:
    """Arguments of a ConvNeXt."""

    depths: list[int]
    dims: list[int]
    layer_scale_init_value: float = 1e-6
    drop_path_rate: float = 0.0

    def overrides(self) -> list[str]:
        """The encoder of these sizes."""
        scale = self.layer_scale_init_value if self.layer_scale_init_value > 0 else "null"
        sizes = f"depths: {self.depths}, dims: {self.dims}"
        options = f"{{{sizes}, ls_init_value: {scale}, output_stride: 32}}"
        return ["encoder=convnext", "encoder.name=convnext_tiny", f"encoder.options={options}"]


ENCODERS: dict[str, Any] = {"resnet": ResNetSettings, "convnext": ConvNeXtSettings}


@dataclass
class Settings:
    """The official constructor's arguments and the step's."""

    encoder: dict[str, Any]
    input_size: int
    mask_ratio: float
    densify_norm: str
    decoder_width: int
    train: bool
    sbn: bool = False
    losses: list[str] = field(default_factory=list)


def _encoder(case: Case, settings: Settings) -> Any:
    kind = settings.encoder.get("type")
    if kind not in ENCODERS:
        raise CannotReplayError(
            f"{case.name}: encoder.type must be one of {', '.join(ENCODERS)}, got {kind!r}"
        )
    given = {key: value for key, value in settings.encoder.items() if key != "type"}
    return parse(ENCODERS[kind], given, where=f"{case.name}: hyperparameters.encoder")


def _build(case: Case, settings: Settings) -> MaskedModel:
    encoder = _encoder(case, settings)
    config = experiment(
        case,
        [
            "experiment=spark",
            *encoder.overrides(),
            f"encoder.drop_path_rate={encoder.drop_path_rate}",
            f"data.image_size={settings.input_size}",
            f"masking.ratio={settings.mask_ratio}",
            f"predictor.width={settings.decoder_width}",
            f"predictor.densify_norm={DENSIFY_NORMS.get(settings.densify_norm, 'none')}",
        ],
    )
    model = build(case, config).train(settings.train)
    load_strictly(model, pretraining_keys(case.weights), case)
    return model


def replay(case: Case) -> Replay:
    """A step from the case's noise: loss, gradients, feature maps, picture, and running statistics."""
    model = _build(case, case.settings(Settings))
    filled = _record_filled_maps(model)
    step = take_step(model, "image", case.input("images"), noise={"mask": case.input("noise")})
    assert step.total is not None
    step.total.backward()
    mask = step.plans["student"].mask
    return Replay(
        loss=step.total,
        losses={"recon": step.losses["main"]},
        tensors={**_tensors(step, model), **filled, **_buffers(model, case)},
        gradients=gradients(model),
        expected_gradients=_expected_gradients(case),
        also={"active": (~mask, case.input("active_b1ff").flatten(1))},
    )


def _expected_gradients(case: Case) -> Tensors:
    names = model_names(case.weights)
    return {names[name]: value for name, value in official_gradients(case).items()}


def _record_filled_maps(model: MaskedModel) -> Tensors:
    """Fills itself with the decoder's inputs when the model runs."""
    found: Tensors = {}
    decoder: Any = model.predictors["main"]
    for level, densify in decoder.densify.items():

        def keep(module: nn.Module, inputs: Any, output: Tensor, level: str = level) -> None:
            found[f"to_dec.{level}"] = output

        densify.register_forward_hook(keep)
    return found


def _tensors(step: Step, model: MaskedModel) -> Tensors:
    prediction = step.predictions["student"]["main"]
    return {
        "mask": step.plans["student"].mask.double(),
        **{f"latent.{i}": found for i, found in enumerate(step.outputs["student"].maps)},
        "pred": unpatchify(prediction.tokens, prediction.grid),
        "loss_per_patch": step.loss_maps["main"].tokens[..., 0],
        "target_patch0": model.targets["main"](step).tokens[:, 0],
    }


def _buffers(model: MaskedModel, case: Case) -> Tensors:
    """Batch-norm buffers behind the step, under official names."""
    state = model.state_dict()
    return {f"buffer_after/{name}": state[ours] for name, ours in model_names(case.weights).items()}
