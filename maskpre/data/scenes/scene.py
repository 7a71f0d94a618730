"""What a scene is made of: plain data, sampled elsewhere, with motion so that a clip is a list of scenes."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32

from maskpre.data.scenes.camera import Camera
from maskpre.data.scenes.patterns import Pattern
from maskpre.data.scenes.shapes import Shape
from maskpre.data.scenes.vectors import Matrix, Vector, cross, unit
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
        turn = rotation_matrix(yaw=self.spin * time, pitch=0.0, roll=0.0)
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

    def towards(self, place: tuple[float, float]) -> Vector:
        """Direction of length 1 to a place of the square; both coordinates in 0..1."""
        side = unit(cross(self.direction, np.roll(self.direction, 1)))
        other = cross(self.direction, side)
        across, along = (np.float32((p - 0.5) * self.width) for p in place)
        return unit(self.direction + across * side + along * other)


@dataclass(frozen=True, kw_only=True, eq=False)
class Background:
    """A ground plane y = 0 in two smoothly mixed colours under a sky that fades from horizon to zenith.

    `waves` (2, k) are wave vectors of the ground's mixture in radians per unit of length, `phases` (k) their
    shifts; `haze` is the distance after which the ground is 63% horizon.
    """

    ground: tuple[Vector, Vector]
    horizon: Vector
    zenith: Vector
    waves: Float32[np.ndarray, "2 k"]
    phases: Float32[np.ndarray, "k"]
    haze: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """Bodies on a ground under a light; the label speaks of `bodies[0]`, the others are in its way."""

    bodies: tuple[Body, ...]
    light: Light
    background: Background
    camera: Camera
    label: int

    def at(self, time: float) -> "Scene":
        """The scene after bodies and camera moved for `time`."""
        bodies = tuple(body.at(time) for body in self.bodies)
        return replace(self, bodies=bodies, camera=self.camera.at(time))

    def seen_by(self, camera: Camera) -> "Scene":
        """The same scene before another camera."""
        return replace(self, camera=camera)
