"""Small ray-cast scenes with exact labels and geometry, each a pure function of (seed, index)."""

from maskpre.data.scenes.ranges import SceneRanges
from maskpre.data.scenes.render import RENDERER_VERSION, Output, Rendering, render
from maskpre.data.scenes.sample import CLASS_NAMES, label_of, sample_camera, sample_scene
from maskpre.data.scenes.scene import Scene

__all__ = [
    "CLASS_NAMES",
    "RENDERER_VERSION",
    "Output",
    "Rendering",
    "Scene",
    "SceneRanges",
    "label_of",
    "render",
    "sample_camera",
    "sample_scene",
]
