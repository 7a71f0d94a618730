"""Pictures of a checkpoint's work: `python -m maskpre.visualize checkpoint=PATH [images=FOLDER]`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

from maskpre.checkpoints.load import load_teachers, open_model, restore
from maskpre.config import command
from maskpre.data import VideoData
from maskpre.data.dataset import Sample, collate
from maskpre.data.decode import decode_picture
from maskpre.data.files import atomic_path
from maskpre.data.module import PretrainData
from maskpre.data.randomness import Draws
from maskpre.data.sources import BadSampleError
from maskpre.data.sources.folder import scan_files
from maskpre.data.splits import Split
from maskpre.errors import UserError
from maskpre.evaluation.reconstruction import picture_objective, reconstruction_grid
from maskpre.ops.noise import KeyedNoise


def find_pictures(images: str | Sequence[str], num: int) -> list[Path]:
    """The first `num` picture files among files and folders; UserError if there is none."""
    found: list[Path] = []
    for path in map(Path, [images] if isinstance(images, str) else images):
        found += [path / name for name in scan_files(path)] if path.is_dir() else [path]
    if not found:
        raise UserError("images is an empty list; give folders or files, or null for the data set's own")
    return found[:num]


def read_pictures(paths: Sequence[Path], data: PretrainData) -> dict[str, Tensor]:
    """Files as one batch, cropped as for evaluation; UserError names a file that is no picture."""
    if isinstance(data, VideoData):
        raise UserError("images are pictures, but the model reads clips; leave images=null")
    samples = []
    for number, path in enumerate(paths):
        try:
            image = decode_picture(np.fromfile(path, dtype=np.uint8), data.channels)
        except (OSError, BadSampleError) as error:
            raise UserError(f"{path} {error}") from error
        samples.append(Sample(data.eval_transform(image, Draws(data.seed, 0, number)), -1, number, 0))
    return collate(samples)


def held_out(data: PretrainData, num: int) -> dict[str, Tensor]:
    """Pictures of the data set that training does not see, or of the training set if there are none."""
    data.prepare_data()
    split: Split = "val" if data.has_split("val") else "train"
    return next(iter(data.eval_loader(split, batch_size=num, limit=num)))


@command("visualize")
def main(cfg: DictConfig) -> None:
    """Draw original, masked and reconstructed pictures."""
    source = open_model(cfg.checkpoint)
    model = restore(source, cfg.checkpoint, teachers="blank")
    drawn = picture_objective(model)
    model.keep(drawn)
    load_teachers(model, source)
    settings: dict[str, Any] = {**source.config["data"], "num_workers": 0, "cache": "none"}
    data: PretrainData = instantiate(settings)
    batch = (
        held_out(data, cfg.num)
        if cfg.images is None
        else read_pictures(find_pictures(cfg.images, cfg.num), data)
    )
    with torch.no_grad():
        noise = KeyedNoise(cfg.seed, batch["epoch"], batch["index"])
        step = model(batch, noise=noise, progress=1.0)
    picture = Image.fromarray(reconstruction_grid(step, model, cfg.num))
    out = Path(cfg.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(out) as beside:
        picture.save(beside, format="PNG")
    print(f"loss {step.losses[drawn].item():.4f} on {len(batch['index'])} samples")
    print(f"written to {out}")


if __name__ == "__main__":
    main()
