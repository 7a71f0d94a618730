"""Frozen features of any encoder: maskpre's own or a timm model."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from maskpre.data import PretrainData, VideoData
from maskpre.encoders.base import Encoder
from maskpre.encoders.video_vit_classifier import VideoViTClassifier
from maskpre.errors import UserError
from maskpre.inputs import ImageInputs, PixelInputs, VideoInputs
from maskpre.types import Encoded, Grid

Pool = Literal["cls", "avg", "maps", "tokens"]
Batches = Iterable[dict[str, Tensor]]


@dataclass(frozen=True)
class Features:
    """Features of a labelled data set, one row per sample: (n, d) pooled or (n, tokens, d)."""

    values: Float[Tensor, "n ..."]
    labels: Int[Tensor, "n"]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Tensor) -> "Features":
        """The features of some samples."""
        return Features(self.values[rows], self.labels[rows])

    @property
    def num_classes(self) -> int:
        """One more than the largest label."""
        return int(self.labels.max()) + 1


def num_frames_of(data: PretrainData) -> int | None:
    """Frames of a clip; None of pictures."""
    return data.num_frames if isinstance(data, VideoData) else None


def inputs_for(data: PretrainData) -> PixelInputs:
    """What normalises the data's pictures or clips."""
    kind = ImageInputs if num_frames_of(data) is None else VideoInputs
    return kind(mean=data.mean, std=data.std)


def pixels_of(batch: dict[str, Tensor]) -> Tensor:
    """The pictures (b, c, h, w) or clips (b, c, t, h, w) of a batch."""
    return batch["video" if "video" in batch else "image"]


def _encode_frames(model: nn.Module, clips: Float[Tensor, "b c t h w"]) -> Encoded:
    """Every frame by itself: all tokens of the frames, and the mean of their prefix tokens."""
    frames = (len(clips), clips.shape[2])
    encoded = encode(model, clips.transpose(1, 2).flatten(0, 1))
    prefix = None if encoded.prefix is None else encoded.prefix.unflatten(0, frames).mean(dim=1)
    grid = Grid((frames[1], *encoded.grid.shape), (1, *encoded.grid.stride))
    return Encoded(encoded.tokens.unflatten(0, frames).flatten(1, 2), grid, prefix=prefix)


def _takes_clips(model: nn.Module) -> bool:
    if isinstance(model, Encoder):
        return len(model.spec.grid.shape) == 3
    return isinstance(model, VideoViTClassifier)


def encode(model: nn.Module, images: Float[Tensor, "b c *size"]) -> Encoded:
    """Final tokens of a maskpre encoder or of a timm model, before any pooling or head.

    Feature maps, channels first or last (timm's `output_fmt`), become tokens in raster order. A model of
    pictures sees every frame of a clip by itself. Raises UserError if the model is neither.
    """
    if images.dim() == 5 and not _takes_clips(model):
        return _encode_frames(model, images)
    if isinstance(model, Encoder):
        return model(images)
    net: Any = model
    if not hasattr(net, "forward_features"):
        raise UserError(f"{type(net).__name__} is neither a maskpre encoder nor a timm model")
    features = net.forward_features(images)
    if isinstance(model, VideoViTClassifier):
        return Encoded(features, model.grid)
    size = (images.shape[2], images.shape[3])
    if features.ndim == 4:
        channels_last = getattr(net, "output_fmt", "NCHW") == "NHWC"
        cells = features if channels_last else features.permute(0, 2, 3, 1)
        return Encoded(cells.flatten(1, 2), _grid((cells.shape[1], cells.shape[2]), size))
    split = net.num_prefix_tokens
    grid = _grid(net.patch_embed.dynamic_feat_size(size), size)
    return Encoded(features[:, split:], grid, prefix=features[:, :split])


def _grid(shape: tuple[int, int], size: tuple[int, int]) -> Grid:
    return Grid(tuple(shape), tuple(length // cells for length, cells in zip(size, shape, strict=True)))


def pooled(encoded: Encoded, pool: Pool) -> Tensor:
    """Features (b, d) of the class token or the mean patch token, or all tokens (b, n, d).

    "maps" are the global averages of all feature maps, one behind the other; UserError if there are none.
    """
    if pool == "maps":
        if not encoded.maps:
            raise UserError("pool is 'maps', but the network gives no feature maps; use 'avg'")
        return torch.cat([found.mean(dim=(2, 3)) for found in encoded.maps], dim=1)
    if pool != "tokens":
        return encoded.pooled(pool)
    if encoded.prefix is None:
        return encoded.tokens
    return torch.cat((encoded.prefix, encoded.tokens), dim=1)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside; afterwards every submodule has its own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def extract(
    model: nn.Module,
    batches: Batches,
    *,
    pool: Pool,
    device: torch.device,
    normalize: Callable[[Tensor], Tensor],
) -> Features:
    """Features of every sample of `batches`, kept on `device`; all tokens are kept in half precision.

    `normalize` turns uint8 pictures or clips into the model's inputs. Raises UserError if a sample has no
    label or there is no sample.
    """
    values, labels = [], []
    with evaluating(model):
        for batch in batches:
            encoded = encode(model, normalize(pixels_of(batch).to(device, non_blocking=True)))
            picked = pooled(encoded, pool)
            values.append(picked.half() if pool == "tokens" else picked.float())
            labels.append(batch["label"].to(device))
    if not labels:
        raise UserError("no samples to extract features from")
    features = Features(torch.cat(values), torch.cat(labels))
    unlabelled = int((features.labels < 0).sum())
    if unlabelled:
        raise UserError(f"{unlabelled} of {len(features)} samples have no label; evaluation needs labels")
    return features
