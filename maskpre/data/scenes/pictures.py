"""Renders scenes into PNG files; kept free of torch, as worker processes import it."""

import io
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from maskpre.data.scenes.ranges import SceneRanges
from maskpre.data.scenes.render import render
from maskpre.data.scenes.sample import CLASS_NAMES, sample_scene
from maskpre.data.scenes.shards import Collection, Rendered


@dataclass(frozen=True, kw_only=True)
class ScenePictures(Collection):
    """Pictures of scenes, as PNG."""

    ranges: SceneRanges

    @property
    def classes(self) -> tuple[str, ...]:
        """Every shape with every pattern."""
        return CLASS_NAMES

    @property
    def pictures_per_sample(self) -> int:
        """One."""
        return 1

    def make(self, index: int) -> Rendered:
        """The scene's picture."""
        scene = sample_scene(seed=self.seed, index=index, ranges=self.ranges)
        image = render(scene, size=self.image_size)["image"]
        return Rendered(scene.label, "png", _png(image), image)


def _png(image: UInt8[np.ndarray, "size size 3"]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()
