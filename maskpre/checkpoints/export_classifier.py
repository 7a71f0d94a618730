"""A fine-tuned classifier as a folder that timm understands, or one of plain torch for clips."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from maskpre.checkpoints.architecture import VIDEO_VIT
from maskpre.checkpoints.export_timm import check_timm_has, write_record
from maskpre.checkpoints.export_video import video_features, write_folder
from maskpre.checkpoints.fine_tuned import FineTunedSource
from maskpre.checkpoints.formats import ExportFormat
from maskpre.checkpoints.sources import WEIGHTS
from maskpre.errors import UserError

NUM_SAMPLES = 2


@dataclass(frozen=True)
class ClassifierExport:
    """Writes a classifier in a format and reads it back.

    Raises UserError for a format that can't hold it.
    """

    source: FineTunedSource
    format: ExportFormat

    def __post_init__(self) -> None:
        architecture = self.source.architecture()
        if self.format not in ("timm", "video"):
            raise UserError(
                f"format={self.format} holds a model of pre-training, not a classifier; use "
                f"format={'video' if architecture.takes_clips else 'timm'}"
            )
        if self.format == "timm":
            check_timm_has(architecture, otherwise="")
        elif architecture.name != VIDEO_VIT:
            raise UserError(f"format=video holds a classifier of clips, not {architecture.name}")

    def __call__(self, folder: Path) -> tuple[Tensor, Tensor]:
        """Write the folder; returns scores (b, classes) of random inputs by the classifier and by what is
        in the folder, in float64.
        """
        net: Any = self.source.build()
        inputs = self._inputs()
        with torch.no_grad():
            self._write(net, folder)
            expected = net.double().eval()(inputs)
            if self.format == "video":
                return expected, video_features(folder, inputs)
            read: Any = timm.create_model(f"local-dir:{folder}", pretrained=True)
            return expected, read.double().eval()(inputs)

    def _inputs(self) -> Tensor:
        """Random pictures, or clips."""
        record = self.source.record
        frames = [self._options["num_frames"]] if record.architecture.takes_clips else []
        size = (NUM_SAMPLES, record.channels, *frames, record.image_size, record.image_size)
        return torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    @property
    def _options(self) -> Mapping[str, Any]:
        return self.source.architecture().options

    def _write(self, net: Any, folder: Path) -> None:
        record, state = self.source.record, net.state_dict()
        architecture = record.architecture
        if self.format == "video":
            write_folder(
                state,
                architecture,
                folder,
                mean=record.mean,
                std=record.std,
                num_classes=net.num_classes,
            )
            return
        folder.mkdir(parents=True)
        save_file({name: value.contiguous() for name, value in state.items()}, folder / WEIGHTS)
        size = [record.channels, record.image_size, record.image_size]
        write_record(
            net,
            folder,
            name=architecture.name,
            options={**self._options, "global_pool": record.global_pool},
            data={"input_size": size, "mean": record.mean, "std": record.std},
        )
