"""Augmentations of supervised training: per picture in the loader, per batch on the device."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from timm.data.auto_augment import posterize, rand_augment_transform
from timm.data.mixup import Mixup, mixup_target
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import str_to_pil_interp
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.autoaugment import TrivialAugmentWide

from maskpre.data.randomness import Draws
from maskpre.data.transforms import Interpolation, Transform
from maskpre.errors import UserError
from maskpre.evaluation.global_rng import seeded_globals

_CHANNELS = (1, 3)


class RandAugmented:
    """A crop followed by timm's RandAugment, drawn from the sample's own stream.

    Args:
        crop: the transform before it.
        policy: timm's description, e.g. "rand-m9-mstd0.5-inc1".
        size: side of the cropped picture, pixels; bounds absolute translations.
        mean: of the data per channel, in [0, 1]; fills what a rotation or translation uncovers.
        interpolation: of geometric operations.
    """

    def __init__(
        self,
        *,
        crop: Transform,
        policy: str,
        size: int,
        mean: Sequence[float],
        interpolation: Interpolation = "bicubic",
    ) -> None:
        if not policy.startswith("rand-"):
            raise UserError(f"policy {policy!r} must describe a RandAugment, such as 'rand-m9-mstd0.5-inc1'")
        if len(mean) not in _CHANNELS:
            raise UserError(f"policy {policy!r} works on pictures of 1 or 3 channels, not {len(mean)}")
        fill = tuple(min(255, round(255 * value)) for value in mean)
        settings = {
            "translate_const": int(size * 0.45),
            "img_mean": fill if len(fill) > 1 else fill[0],
            "interpolation": str_to_pil_interp(interpolation),
        }
        self.crop = crop
        self.operations = rand_augment_transform(policy, settings)
        for operation in self.operations.ops:
            if operation.aug_fn is posterize:
                operation.aug_fn = _posterize

    def __call__(self, image: UInt8[Tensor, "*t c h w"], draws: Draws) -> UInt8[Tensor, "*t c s s"]:
        """Crop, then augment; equal pictures and draws give equal results.

        All frames of a clip get the same crop, operations and magnitudes.
        """
        image = self.crop(image, draws)
        seed = int(draws.uniform("rand_augment", 1)[0] * 2**32)
        if image.ndim == 4:
            return torch.stack([self._augmented(frame, seed) for frame in image])
        return self._augmented(image, seed)

    def _augmented(self, image: UInt8[Tensor, "c h w"], seed: int) -> UInt8[Tensor, "c h w"]:
        with seeded_globals(seed):
            return _as_tensor(self.operations(_as_picture(image)))


class TrivialAugmented:
    """A crop followed by torchvision's TrivialAugmentWide (Müller & Hutter, arXiv 2103.10158).

    One operation of random strength, drawn from the sample's own stream; what it uncovers is black. Pictures
    have 1 or 3 channels.

    Args:
        crop: the transform before it.
        interpolation: of geometric operations.
    """

    def __init__(self, *, crop: Transform, interpolation: Interpolation = "bicubic") -> None:
        self.crop = crop
        self.operation = TrivialAugmentWide(interpolation=InterpolationMode(interpolation))

    def __call__(self, image: UInt8[Tensor, "c h w"], draws: Draws) -> UInt8[Tensor, "c s t"]:
        """Crop, then augment; equal pictures and draws give equal results."""
        image = self.crop(image, draws)
        if image.ndim != 3 or len(image) not in _CHANNELS:
            raise UserError(f"TrivialAugment works on pictures of 1 or 3 channels, got {tuple(image.shape)}")
        with seeded_globals(int(draws.uniform("trivial_augment", 1)[0] * 2**32)):
            return _as_tensor(self.operation(_as_picture(image)))


def _as_picture(image: UInt8[Tensor, "c h w"]) -> Image.Image:
    array = image.permute(1, 2, 0).numpy()
    return Image.fromarray(array[..., 0] if len(image) == 1 else array)


def _as_tensor(picture: Image.Image) -> UInt8[Tensor, "c h w"]:
    pixels = torch.from_numpy(np.array(picture))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def _posterize(picture: Image.Image, bits: int, **unused: object) -> Image.Image:
    """Keep the upper bits. At full magnitude timm asks for none, which Pillow 13 refuses: black."""
    return picture.point(lambda _: 0) if bits == 0 else posterize(picture, bits)


@dataclass(frozen=True, kw_only=True)
class BatchAugment:
    """Random erasing, then mixup or cutmix, with smoothed soft targets: timm's, one draw per batch.

    Erasing (Zhong et al., arXiv 1708.04896) fills up to a third of a picture with normal noise. With
    probability `mix_prob` a batch is mixed with its own reverse: cutmix (arXiv 1905.04899) with probability
    `switch_prob`, else mixup (arXiv 1710.09412). An alpha of 0 switches its method off.
    """

    mixup_alpha: float = 0.8
    cutmix_alpha: float = 1.0
    mix_prob: float = 1.0
    switch_prob: float = 0.5
    label_smoothing: float = 0.1
    erase_prob: float = 0.25

    @property
    def mixes(self) -> bool:
        """Whether pictures are mixed in pairs; batches must then be even."""
        return self.mix_prob > 0 and (self.mixup_alpha > 0 or self.cutmix_alpha > 0)

    def __call__(
        self, images: Float[Tensor, "b c *t h w"], labels: Int[Tensor, "b"], *, num_classes: int, seed: int
    ) -> tuple[Float[Tensor, "b c *t h w"], Float[Tensor, "b k"]]:
        """Augmented pictures and soft targets; `images` are changed in place. Decided by `seed` alone.

        Frames of a clip are erased and mixed in the same places. Raises UserError if an odd batch would have
        to be mixed.
        """
        if images.dim() == 5:
            frames = (images.shape[1], images.shape[2])
            mixed, targets = self(images.flatten(1, 2), labels, num_classes=num_classes, seed=seed)
            return mixed.unflatten(1, frames), targets
        with seeded_globals(seed, images.device):
            if self.erase_prob > 0:
                images = RandomErasing(self.erase_prob, mode="pixel", device=images.device)(images)
            if not self.mixes:
                return images, mixup_target(labels, num_classes, smoothing=self.label_smoothing)
            if len(images) % 2:
                raise UserError(f"mixup and cutmix need an even batch, got {len(images)} pictures")
            mixup = Mixup(
                mixup_alpha=self.mixup_alpha,
                cutmix_alpha=self.cutmix_alpha,
                prob=self.mix_prob,
                switch_prob=self.switch_prob,
                label_smoothing=self.label_smoothing,
                num_classes=num_classes,
            )
            return mixup(images, labels)
