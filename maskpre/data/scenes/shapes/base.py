"""What every shape offers to the ray caster."""

from abc import ABC, abstractmethod

import numpy as np
from jaxtyping import Float32

from maskpre.data.scenes.vectors import Scalars, Vector, Vectors


class Shape(ABC):
    """A closed surface in its own frame, centred on the origin; bodies rotate and move it, never scale it."""

    @property
    @abstractmethod
    def bounding_radius(self) -> float:
        """Radius of the smallest sphere about the origin that holds the shape."""

    @property
    @abstractmethod
    def girth(self) -> float | None:
        """Length after which the coordinate that runs around the shape is back at its start, if one does."""

    @abstractmethod
    def intersect(self, origins: Vectors, directions: Vectors) -> Scalars:
        """Distance to the first hit in front of each origin, inf where there is none.

        Directions have length 1 and origins lie outside the shape (or just above its surface).
        """

    @abstractmethod
    def normals(self, points: Vectors) -> Vectors:
        """Outward normals of length 1 at points on the surface."""

    @abstractmethod
    def coordinates(self, points: Vectors, normals: Vectors) -> Float32[np.ndarray, "2 n"]:
        """Where surface points lie on the unrolled surface, in units of length, for surface patterns."""

    @abstractmethod
    def support(self, direction: Vector) -> float:
        """How far the shape reaches along a direction of length 1."""
