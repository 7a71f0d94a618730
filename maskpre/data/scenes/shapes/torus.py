"""Tori."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from maskpre.data.scenes.shapes.base import Shape
from maskpre.data.scenes.vectors import Scalars, Vector, Vectors, dot

_ROUNDS = 10
_STEPS = 5
"""Steps per round; finished rays are dropped only between rounds, as dropping costs as much as a step."""
_CLOSE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Torus(Shape):
    """A tube of radius `tube` around the circle of radius `ring` in the xy plane (it faces the viewer).

    Rays are sphere-traced (Hart 1996): the exact distance to the surface bounds each step, so no step passes
    through it. A quartic's roots would need float64 near grazing rays.
    """

    ring: float
    tube: float

    @property
    def bounding_radius(self) -> float:
        """The outer radius."""
        return self.ring + self.tube

    @property
    def girth(self) -> float:
        """Around the circle inside the tube."""
        return 2 * math.pi * self.ring

    def intersect(self, origins: Vectors, directions: Vectors) -> Scalars:
        """Sphere tracing between the bounds; see the class."""
        travelled, ends = self._bounds(origins, directions)
        hit = np.full_like(travelled, np.inf)
        rays = np.flatnonzero(travelled < ends)
        starts, ways = origins.take(rays, axis=1), directions.take(rays, axis=1)
        travelled, ends = travelled[rays], ends[rays]
        for _ in range(_ROUNDS):
            for _ in range(_STEPS):
                gap = self._distance(starts + travelled * ways)
                travelled = travelled + gap
            near = gap < _CLOSE
            hit[rays[near]] = travelled[near]
            going = np.flatnonzero(~near & (travelled < ends))
            if not going.size:
                break
            rays, travelled, ends = rays[going], travelled[going], ends[going]
            starts, ways = starts.take(going, axis=1), ways.take(going, axis=1)
        return hit

    def normals(self, points: Vectors) -> Vectors:
        """Away from the circle inside the tube."""
        x, y, z = points
        from_axis = np.sqrt(x * x + y * y)
        inwards = 1 - self.ring / np.maximum(from_axis, np.float32(1e-6))
        across = np.stack([x * inwards, y * inwards, z])
        return across / np.sqrt(dot(across, across))

    def coordinates(self, points: Vectors, normals: Vectors) -> Float32[np.ndarray, "2 n"]:
        """Around the tube and around the circle inside it."""
        x, y, z = points
        around_tube = np.arctan2(np.sqrt(x * x + y * y) - np.float32(self.ring), z)
        return np.stack([around_tube * np.float32(self.tube), np.arctan2(x, y) * np.float32(self.ring)])

    def support(self, direction: Vector) -> float:
        """The circle's reach and the tube's."""
        return self.ring * float(np.hypot(direction[0], direction[1])) + self.tube

    def _distance(self, points: Vectors) -> Scalars:
        x, y, z = points
        across = np.sqrt(x * x + y * y) - np.float32(self.ring)
        return np.sqrt(across * across + z * z) - np.float32(self.tube)

    def _bounds(self, origins: Vectors, directions: Vectors) -> tuple[Scalars, Scalars]:
        """Stretch of each ray inside both the bounding sphere and the slab abs(z) <= tube."""
        along = dot(origins, directions)
        square = along * along - dot(origins, origins) + np.float32(self.bounding_radius**2)
        root = np.sqrt(np.maximum(square, 0))
        inverse = 1 / np.where(np.abs(directions[2]) < 1e-9, np.float32(1e-9), directions[2])
        middle, reach = -origins[2] * inverse, np.float32(self.tube) * np.abs(inverse)
        start = np.maximum(np.maximum(-along - root, middle - reach), 0)
        end = np.minimum(-along + root, middle + reach)
        return start, np.where(square >= 0, end, np.float32(-1))
