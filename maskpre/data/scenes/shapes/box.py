"""Boxes."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

from maskpre.data.scenes.shapes.base import Shape
from maskpre.data.scenes.vectors import Scalars, Vector, Vectors, vector

_ACROSS = np.array([[2, 0, 0], [1, 2, 1]])
"""For a face across x, y or z: which two coordinates span it."""


@dataclass(frozen=True, kw_only=True)
class Box(Shape):
    """The box with the given half edge lengths along x, y and z."""

    half_edges: tuple[float, float, float]

    @property
    def bounding_radius(self) -> float:
        """Half the diagonal."""
        return float(np.linalg.norm(self.half_edges))

    @property
    def girth(self) -> None:
        """None: every face is unrolled by itself."""
        return None

    def intersect(self, origins: Vectors, directions: Vectors) -> Scalars:
        """Slab method (Kay & Kajiya 1986): the ray enters where it is inside all three pairs of planes."""
        half = vector(*self.half_edges)[:, None]
        inverse = 1 / np.where(np.abs(directions) < 1e-9, np.float32(1e-9), directions)
        middle = -origins * inverse
        reach = half * np.abs(inverse)
        enter = (middle - reach).max(axis=0)
        leave = (middle + reach).min(axis=0)
        return np.where((enter <= leave) & (enter > 0), enter, np.float32(np.inf))

    def normals(self, points: Vectors) -> Vectors:
        """Across the face that the point is closest to."""
        face = self._face(points)
        columns = np.arange(points.shape[1])
        normals = np.zeros_like(points)
        normals[face, columns] = np.sign(points[face, columns])
        return normals

    def coordinates(self, points: Vectors, normals: Vectors) -> Float32[np.ndarray, "2 n"]:
        """The two coordinates that span the face."""
        return np.take_along_axis(points, _ACROSS[:, self._face(points)], axis=0)

    def support(self, direction: Vector) -> float:
        """To the corner on that side."""
        return float(np.abs(direction) @ vector(*self.half_edges))

    def _face(self, points: Vectors) -> Int64[np.ndarray, "n"]:
        return (np.abs(points) - vector(*self.half_edges)[:, None]).argmax(axis=0)
