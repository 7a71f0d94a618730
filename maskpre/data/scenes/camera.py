"""A pinhole camera and its rays."""

import math
from dataclasses import dataclass, replace

import numpy as np

from maskpre.data.scenes.vectors import Matrix, Vector, Vectors, cross, unit, vector


@dataclass(frozen=True, kw_only=True, eq=False)
class Camera:
    """Looks from `position` to `target`, upright; `field_of_view` in radians, equal in both directions.

    `velocity` moves position and target together, in units of length per unit of time.
    """

    position: Vector
    target: Vector
    field_of_view: float
    velocity: Vector

    @property
    def axes(self) -> Matrix:
        """Columns: right, up, and forward along the optical axis, each of length 1."""
        forward = unit(self.target - self.position)
        right = unit(cross(forward, vector(0.0, 1.0, 0.0)))
        return np.stack([right, cross(right, forward), forward], axis=1)

    def at(self, time: float) -> "Camera":
        """The camera after it moved for `time`."""
        shift = self.velocity * np.float32(time)
        return replace(self, position=self.position + shift, target=self.target + shift)

    def directions(self, *, size: int, place: tuple[float, float] = (0.5, 0.5)) -> Vectors:
        """Directions of length 1 of the size ** 2 rays of a square picture, row by row from the top left.

        Each ray goes through the same `place` of its pixel: (across, down), both in 0..1.
        """
        steps = np.arange(size, dtype=np.float32)
        reach = np.float32(math.tan(self.field_of_view / 2))
        across, down = (((steps + np.float32(p)) * np.float32(2 / size) - 1) * reach for p in place)
        right, up, forward = (axis[:, None, None] for axis in self.axes.T)
        return unit((right * across + forward - up * down[:, None]).reshape(3, -1))
