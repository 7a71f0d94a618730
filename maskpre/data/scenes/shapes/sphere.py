"""Spheres."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from maskpre.data.scenes.shapes.base import Shape
from maskpre.data.scenes.vectors import Scalars, Vector, Vectors, dot


@dataclass(frozen=True, kw_only=True)
class Sphere(Shape):
    """The points at distance `radius` from the origin."""

    radius: float

    @property
    def bounding_radius(self) -> float:
        """The radius itself."""
        return self.radius

    @property
    def girth(self) -> float:
        """The equator."""
        return 2 * math.pi * self.radius

    def intersect(self, origins: Vectors, directions: Vectors) -> Scalars:
        """From the ray's closest approach to the centre, half a chord back."""
        along = dot(origins, directions)
        nearest = origins - along * directions
        half_chord_squared = self.radius**2 - dot(nearest, nearest)
        distance = -along - np.sqrt(np.maximum(half_chord_squared, 0))
        return np.where((half_chord_squared >= 0) & (distance > 0), distance, np.float32(np.inf))

    def normals(self, points: Vectors) -> Vectors:
        """Along the radius."""
        return points / np.sqrt(dot(points, points))

    def coordinates(self, points: Vectors, normals: Vectors) -> Float32[np.ndarray, "2 n"]:
        """Longitude and latitude."""
        longitude = np.arctan2(normals[0], normals[2])
        latitude = np.arcsin(np.clip(normals[1], -1, 1))
        return np.stack([longitude, latitude]) * np.float32(self.radius)

    def support(self, direction: Vector) -> float:
        """The same in every direction."""
        return self.radius
