"""What a scene is made of: plain data, sampled elsewhere, with motion so that a clip is a list of scenes."""

from dataclasses import dataclass, replace

import numpy as np

from maskpre.data.scenes.camera import Camera
from maskpre.data.scenes.patterns import Pattern
from maskpre.data.scenes.shapes import Shape
from maskpre.data.scenes.vectors import Matrix, Vector
from maskpre.data.scenes.vectors import rotation as rotation_matrix


@dataclass(frozen=True, kw_only=True, eq=False)
class Body:
    """A patterned shape in the world: world point = rotation @ shape point + position.

    Colours are RGB in 0..1. It slides with `velocity` and turns about the vertical by `spin` radians per unit
    of time, both of which keep it resting on the ground.
    """

    shape: Shape
    position: Vector
    rotation: Matrix
    pattern: Pattern
    tones: tuple[Vector, Vector]
    velocity: Vector
    spin: float

    def at(self, time: float) -> "Body":
        """The body after it moved for `time`."""
        turn = rotation_matrix(yaw=self.spin * time, pitch=0, roll=0)
        return replace(
            self, position=self.position + self.velocity * np.float32(time), rotation=turn @ self.rotation
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Light:
    """A distant light: `direction` points towards it; its strength, the ambient light, and its width.

    `width` is the edge of its square as seen from the scene, over its distance: 0 gives hard shadows.
    """

    direction: Vector
    strength: float
    ambient: float
    width: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Background:
    """A ground plane y = 0 in two smoothly mixed colours under a sky that fades from horizon to zenith.

    `waves` (2, k) are wave vectors of the ground's mixture in radians per unit of length, `phases` (k) shifts;
    `haze` is the distance after which the ground is 63% horizon.
    """

    ground: tuple[Vector, Vector]
    horizon: Vector
    zenith: Vector
    waves: np.ndarray[tuple[int, int], np.dtype[np.float32]]
    phases: np.ndarray[tuple[int], np.dtype[np.float32]]
    haze: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """Bodies on a ground under a light; `bodies[0]` is the one the label speaks of, the others are in the way."""

    bodies: tuple[Body, ...]
    light: Light
    background: Background
    camera: Camera
    label: int

    def at(self, time: float) -> "Scene":
        """The scene after bodies and camera moved for `time`."""
        bodies = tuple(body.at(time) for body in self.bodies)
        return replace(self, bodies=bodies, camera=self.camera.at(time))
