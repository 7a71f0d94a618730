"""Writing a model in the formats other programs read, and proving what was written."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import uuid4

import torch
from omegaconf import OmegaConf
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from maskpre.checkpoints.export_classifier import ClassifierExport
from maskpre.checkpoints.export_timm import timm_features, write_timm
from maskpre.checkpoints.export_video import video_features, write_video
from maskpre.checkpoints.fine_tuned import FineTunedSource
from maskpre.checkpoints.formats import ExportFormat
from maskpre.checkpoints.load import as_model, load_into, open_model, restore
from maskpre.checkpoints.names_mae import official_keys
from maskpre.checkpoints.save import atomic_save
from maskpre.checkpoints.sources import FULL_CONFIG, WEIGHTS, OwnSource, open_source
from maskpre.encoders.base import Encoder
from maskpre.encoders.vit import ViT
from maskpre.errors import UserError
from maskpre.predictors.mae_decoder import MAEDecoder

Job = Callable[[Path], tuple[Tensor, Tensor]]
"""Writes an export; returns features as they are, and by what was written."""

TOLERANCE = 1e-5
NUM_PICTURES = 2


@dataclass(frozen=True)
class Format:
    """`write` makes a file or folder of a model; `features` reads it back and encodes pictures with it."""

    write: Callable[[OwnSource, Path], None]
    features: Callable[[OwnSource, Path, Tensor], Tensor]


def export(checkpoint: str, out: str, format: ExportFormat) -> float:
    """Write the model of a checkpoint to `out`, read it back, and compare features on random pictures.

    A classifier's scores are compared. Returns the largest difference, computed in float64. Raises UserError,
    leaving nothing behind, if `out` exists, the format can't hold the model, or the difference is above 1e-5.
    """
    target = Path(out)
    if target.exists():
        raise UserError(f"{out} exists already; choose another out")
    written = _job(checkpoint, format)
    beside = target.with_name(f".{target.name}.{uuid4().hex[:8]}.tmp")
    try:
        difference = _largest_difference(*written(beside))
        beside.rename(target)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{out} can't be written: {error}") from error
    finally:
        if beside.is_dir():
            shutil.rmtree(beside)
        else:
            beside.unlink(missing_ok=True)
    return difference


def _job(checkpoint: str, format: ExportFormat) -> Job:
    opened = open_source(checkpoint)
    if isinstance(opened, FineTunedSource):
        return ClassifierExport(opened, format)
    source = as_model(opened, checkpoint)
    encoder = restore(source, checkpoint, teachers="blank").encoder
    return partial(_write_encoder, FORMATS[format], source, encoder)


def _write_encoder(chosen: Format, source: OwnSource, encoder: Encoder, path: Path) -> tuple[Tensor, Tensor]:
    pictures = torch.randn(
        NUM_PICTURES,
        encoder.spec.in_chans,
        *encoder.spec.grid.input_size,
        generator=torch.Generator().manual_seed(0),
        dtype=torch.float64,
    )
    with torch.no_grad():
        expected = encoder_features(encoder, pictures)
        chosen.write(source, path)
        return expected, chosen.features(source, path, pictures)


def _largest_difference(expected: Tensor, got: Tensor) -> float:
    if got.shape != expected.shape:
        raise UserError(f"the export gives features of {tuple(got.shape)}, expected {tuple(expected.shape)}")
    difference = (got - expected).abs().max().item()
    if not difference <= TOLERANCE:
        raise UserError(f"the export's features differ by {difference:.2g}, allowed are {TOLERANCE:g}")
    return difference


def encoder_features(encoder: Encoder, pictures: Tensor) -> Tensor:
    """Tokens of whole pictures (b, n, d), prefix tokens first, in float64."""
    encoded = encoder.double().eval()(pictures)
    return encoded.tokens if encoded.prefix is None else torch.cat([encoded.prefix, encoded.tokens], dim=1)


def write_full(source: OwnSource, folder: Path) -> None:
    """All weights under this package's names, and the configuration to rebuild the model from."""
    folder.mkdir(parents=True)
    save_file({name: value.contiguous() for name, value in source.state.items()}, folder / WEIGHTS)
    OmegaConf.save(OmegaConf.create(dict(source.config)), folder / FULL_CONFIG)


def _full_features(folder: Path, pictures: Tensor) -> Tensor:
    model = restore(open_model(str(folder)), str(folder), teachers="blank")
    return encoder_features(model.encoder, pictures)


def write_mae(source: OwnSource, file: Path) -> None:
    """A checkpoint with the official MAE's names; UserError for a model that is no MAE."""
    model = restore(source, str(file), teachers="blank")
    encoder = model.encoder
    predictors = [type(predictor) for predictor in model.predictors.values()]
    official = isinstance(encoder, ViT) and encoder.reg_token is None and encoder.cls_token is not None
    if not official or encoder.spec.hidden != "drop" or predictors != [MAEDecoder]:
        raise UserError(
            "format=mae holds a ViT with class token, without registers or mask token, and one MAE decoder; "
            f"this is a {type(encoder).__name__} with {', '.join(kind.__name__ for kind in predictors)}"
        )
    try:
        atomic_save({"model": official_keys(source.state)}, file)
    except ValueError as error:
        raise UserError(f"format=mae: {error}") from error


def _mae_features(source: OwnSource, file: Path, pictures: Tensor) -> Tensor:
    model = restore(source, str(file), teachers="blank")
    load_into(model, str(file))
    return encoder_features(model.encoder, pictures)


FORMATS: Mapping[ExportFormat, Format] = {
    "timm": Format(write_timm, lambda source, folder, pictures: timm_features(folder, pictures)),
    "full": Format(write_full, lambda source, folder, pictures: _full_features(folder, pictures)),
    "mae": Format(write_mae, _mae_features),
    "video": Format(write_video, lambda source, folder, clips: video_features(folder, clips)),
}
