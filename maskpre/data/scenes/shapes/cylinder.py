"""Cylinders."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from maskpre.data.scenes.shapes.base import Shape
from maskpre.data.scenes.vectors import Scalars, Vector, Vectors


@dataclass(frozen=True, kw_only=True)
class Cylinder(Shape):
    """A capped circular cylinder about the y axis."""

    radius: float
    half_height: float

    @property
    def bounding_radius(self) -> float:
        """From the centre to the edge of a cap."""
        return math.hypot(self.radius, self.half_height)

    @property
    def girth(self) -> float:
        """Around the side."""
        return 2 * math.pi * self.radius

    def intersect(self, origins: Vectors, directions: Vectors) -> Scalars:
        """The ray enters where it is inside both the endless cylinder and the slab between the caps."""
        (ox, oy, oz), (dx, dy, dz) = origins, directions
        a = np.maximum(dx * dx + dz * dz, np.float32(1e-9))
        b = ox * dx + oz * dz
        square = b * b - a * (ox * ox + oz * oz - np.float32(self.radius**2))
        root = np.sqrt(np.maximum(square, 0))
        inverse = 1 / np.where(np.abs(dy) < 1e-9, np.float32(1e-9), dy)
        middle, reach = -oy * inverse, np.float32(self.half_height) * np.abs(inverse)
        enter = np.maximum((-b - root) / a, middle - reach)
        leave = np.minimum((-b + root) / a, middle + reach)
        return np.where((square >= 0) & (enter <= leave) & (enter > 0), enter, np.float32(np.inf))

    def normals(self, points: Vectors) -> Vectors:
        """Away from the axis on the side, along it on the caps."""
        x, y, z = points
        from_axis = np.sqrt(x * x + z * z)
        on_cap = np.abs(y) - self.half_height > from_axis - self.radius
        side = np.where(on_cap, 0, 1 / np.maximum(from_axis, np.float32(1e-12)))
        return np.stack([x * side, np.where(on_cap, np.sign(y), 0), z * side])

    def coordinates(self, points: Vectors, normals: Vectors) -> Float32[np.ndarray, "2 n"]:
        """Around and along the side; the caps are flat."""
        x, y, z = points
        on_cap = normals[1] != 0
        around = np.arctan2(x, z) * np.float32(self.radius)
        return np.stack([np.where(on_cap, x, around), np.where(on_cap, z, y)])

    def support(self, direction: Vector) -> float:
        """To the edge of the cap on that side."""
        x, y, z = (float(c) for c in direction)
        return self.radius * math.hypot(x, z) + self.half_height * abs(y)
