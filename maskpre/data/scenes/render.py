"""Pictures of a scene, and the exact geometry behind them."""

from collections.abc import Collection
from itertools import product
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Shaped, UInt8

from maskpre.data.scenes.camera import Camera
from maskpre.data.scenes.scene import Scene
from maskpre.data.scenes.shade import shade, surfaces
from maskpre.data.scenes.trace import SKY, Hits, first_hits
from maskpre.data.scenes.vectors import Vectors

RENDERER_VERSION = 2
"""Raised whenever the same (seed, index) renders to other pixels, so that cached data are rendered again."""

Output = Literal["image", "depth", "segmentation", "points", "normals"]
Rendering: TypeAlias = dict[Output, Shaped[np.ndarray, "size size ..."]]


_IMAGE_ONLY: tuple[Output, ...] = ("image",)


def render(
    scene: Scene,
    *,
    size: int,
    camera: Camera | None = None,
    outputs: Collection[Output] = _IMAGE_ONLY,
    supersampling: int = 2,
) -> Rendering:
    """Render the requested outputs of a scene as seen by its own or another camera.

    image: uint8 (size, size, 3) RGB, the mean of supersampling ** 2 rays per pixel. The others come from one
    ray through each pixel's centre: depth: float32 along the optical axis, inf for the sky; segmentation:
    uint8, 0 sky, 1 ground, 2 + k for body k; points: float32 (size, size, 3) in the world, nan for the sky;
    normals: float32 (size, size, 3) of length 1, facing outwards, 0 for the sky.
    """
    scene = scene if camera is None else scene.seen_by(camera)
    rendering: Rendering = {}
    if "image" in outputs:
        rendering["image"] = _image(scene, size=size, supersampling=supersampling)
    if set(outputs) - {"image"}:
        geometry = _geometry(scene, size=size)
        rendering |= {name: geometry[name] for name in outputs if name != "image"}
    return rendering


def _image(scene: Scene, *, size: int, supersampling: int) -> UInt8[np.ndarray, "size size 3"]:
    """The mean of passes, each through another place of the pixels and from another place of the light."""
    grid = (np.arange(supersampling) + 0.5) / supersampling
    passes = [
        _pass(scene, size=size, in_pixel=in_pixel, on_light=_spread(number))
        for number, in_pixel in enumerate(product(grid, grid))
    ]
    pixels = np.clip(sum(passes) / len(passes), 0, 1).reshape(3, size, size)
    return np.ascontiguousarray((pixels * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0))


def _pass(
    scene: Scene, *, size: int, in_pixel: tuple[float, float], on_light: tuple[float, float]
) -> Vectors:
    directions = scene.camera.directions(size=size, place=in_pixel)
    return shade(scene, directions, _hits(scene, directions), towards_light=scene.light.towards(on_light))


def _spread(number: int) -> tuple[float, float]:
    """Member `number` of a sequence that fills the unit square evenly: Roberts' R2."""
    return (0.5 + number * 0.7548776662466927) % 1, (0.5 + number * 0.5698402909980532) % 1


def _geometry(scene: Scene, *, size: int) -> Rendering:
    directions = scene.camera.directions(size=size)
    hits = _hits(scene, directions)
    met = surfaces(scene, directions, hits)
    sky = hits.owner == SKY
    forward = scene.camera.axes[:, 2]
    return {
        "depth": (hits.distance * (forward @ directions)).reshape(size, size),
        "segmentation": hits.owner.reshape(size, size),
        "points": np.where(sky, np.float32(np.nan), met.points).T.reshape(size, size, 3),
        "normals": np.where(sky, np.float32(0), met.normals).T.reshape(size, size, 3),
    }


def _hits(scene: Scene, directions: Vectors) -> Hits:
    return first_hits(scene.bodies, scene.camera.position[:, None], directions)
