"""A pinhole camera and its rays."""

import math
from dataclasses import dataclass, replace

import numpy as np

from maskpre.data.scenes.vectors import Matrix, Vector, Vectors, unit, vector


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
        right = unit(np.cross(forward, vector(0, 1, 0)))
        return np.stack([right, np.cross(right, forward), forward], axis=1)

    def at(self, time: float) -> "Camera":
        """The camera after it moved for `time`."""
        shift = self.velocity * np.float32(time)
        return replace(self, position=self.position + shift, target=self.target + shift)

    def directions(self, *, size: int, supersampling: int) -> Vectors:
        """Ray directions of length 1 for a square picture.

        The n = supersampling ** 2 * size ** 2 columns go over the places inside a pixel first, then over rows
        from the top and columns from the left, so that a picture is the mean over the leading axis of
        (supersampling ** 2, size, size).
        """
        fine = size * supersampling
        line = ((np.arange(fine, dtype=np.float32) + 0.5) / fine * 2 - 1).reshape(size, supersampling).T
        line = line * np.float32(math.tan(self.field_of_view / 2))
        rows, columns = np.broadcast_arrays(-line[:, None, :, None], line[None, :, None, :])
        in_camera = np.stack([columns.ravel(), rows.ravel(), np.ones(fine * fine, np.float32)])
        return self.axes @ unit(in_camera)
