"""Cones."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from maskpre.data.scenes.shapes.base import Shape
from maskpre.data.scenes.vectors import Scalars, Vector, Vectors

_HALFWAY = 0.6
"""Cells have their true width where the cone is this much of its base's radius wide."""


@dataclass(frozen=True, kw_only=True)
class Cone(Shape):
    """A cone about the y axis: apex at y = height / 2, base disc of `radius` at y = -height / 2."""

    radius: float
    height: float

    @property
    def bounding_radius(self) -> float:
        """From the centre to the edge of the base."""
        return math.hypot(self.radius, self.height / 2)

    @property
    def _slope(self) -> float:
        return self.radius / self.height

    @property
    def girth(self) -> float:
        """Around the side where cells have their true width."""
        return 2 * math.pi * _HALFWAY * self.radius

    def intersect(self, origins: Vectors, directions: Vectors) -> Scalars:
        """The nearer of the side and the base."""
        return np.minimum(self._meet_side(origins, directions), self._meet_base(origins, directions))

    def _meet_side(self, origins: Vectors, directions: Vectors) -> Scalars:
        (ox, oy, oz), (dx, dy, dz) = origins, directions
        slope_squared = np.float32(self._slope**2)
        below_apex = np.float32(self.height / 2) - oy
        a = dx * dx + dz * dz - slope_squared * dy * dy
        b = ox * dx + oz * dz + slope_squared * below_apex * dy
        c = ox * ox + oz * oz - slope_squared * below_apex * below_apex
        square = b * b - a * c
        # Neither root, q / a or c / q, cancels, also where the ray is parallel to the side (a = 0).
        q = -(b + np.copysign(np.sqrt(np.maximum(square, 0)), b))
        best = np.full_like(a, np.inf)
        for above, under in ((q, a), (c, q)):
            root = above / np.where(np.abs(under) < 1e-9, np.float32(1e-9), under)
            depth = below_apex - root * dy
            valid = (square >= 0) & (root > 0) & (depth >= 0) & (depth <= self.height)
            best = np.where(valid & (root < best), root, best)
        return best

    def _meet_base(self, origins: Vectors, directions: Vectors) -> Scalars:
        (ox, oy, oz), (dx, dy, dz) = origins, directions
        distance = (np.float32(-self.height / 2) - oy) / np.where(np.abs(dy) < 1e-9, np.float32(1e-9), dy)
        x, z = ox + distance * dx, oz + distance * dz
        inside = (distance > 0) & (x * x + z * z <= self.radius**2)
        return np.where(inside, distance, np.float32(np.inf))

    def normals(self, points: Vectors) -> Vectors:
        """Square to the slant on the side, downwards on the base."""
        x, y, z = points
        from_axis = np.sqrt(x * x + z * z)
        length = math.hypot(1, self._slope)
        outside_side = (from_axis - self._slope * (self.height / 2 - y)) / np.float32(length)
        on_base = -self.height / 2 - y > outside_side
        side = np.where(on_base, 0, 1 / (length * np.maximum(from_axis, np.float32(1e-12))))
        upwards = np.where(on_base, np.float32(-1), np.float32(self._slope / length))
        return np.stack([x * side, upwards, z * side])

    def coordinates(self, points: Vectors, normals: Vectors) -> Float32[np.ndarray, "2 n"]:
        """Around the side and along its slant; the base is flat."""
        x, y, z = points
        on_base = normals[1] < 0
        around = np.arctan2(x, z) * np.float32(_HALFWAY * self.radius)
        slant = y * np.float32(math.hypot(1, self._slope))
        return np.stack([np.where(on_base, x, around), np.where(on_base, z, slant)])

    def support(self, direction: Vector) -> float:
        """To the apex or to the edge of the base."""
        x, y, z = (float(c) for c in direction)
        return max(self.height / 2 * y, self.radius * math.hypot(x, z) - self.height / 2 * y)
