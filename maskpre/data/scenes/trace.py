"""Which surface each ray meets first, and whether anything stands between a point and the light."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from maskpre.data.scenes.scene import Body
from maskpre.data.scenes.vectors import Columns, Scalars, Vectors, dot

SKY = 0
GROUND = 1
FIRST_BODY = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Hits:
    """Distance along each ray (inf for the sky) and what it met: SKY, GROUND or FIRST_BODY + k for body k."""

    distance: Scalars
    owner: UInt8[np.ndarray, "n"]


def first_hits(bodies: tuple[Body, ...], origin: Float32[np.ndarray, "3 1"], directions: Vectors) -> Hits:
    """Trace rays of unit direction from one common origin above the ground against bodies and ground."""
    falling = directions[1] < -1e-6
    distance = np.where(falling, -origin[1] / np.where(falling, directions[1], -1), np.float32(np.inf))
    owner = np.where(falling, np.uint8(GROUND), np.uint8(SKY))
    for number, body in enumerate(bodies):
        rays = _candidates(body, origin, directions)
        found = _intersect(body, origin, directions, rays)
        closer = found < distance[rays]
        distance[rays[closer]] = found[closer]
        owner[rays[closer]] = FIRST_BODY + number
    return Hits(distance=distance, owner=owner)


def shadowed(
    bodies: tuple[Body, ...], points: Vectors, towards_light: Float32[np.ndarray, "3 1"]
) -> Bool[np.ndarray, "n"]:
    """True where something blocks the way from a point, just above its surface, towards the light."""
    blocked = np.zeros(points.shape[1], bool)
    for body in bodies:
        rays = _candidates(body, points, towards_light)
        blocked[rays] |= np.isfinite(_intersect(body, points, towards_light, rays))
    return blocked


def _candidates(body: Body, origins: Columns, directions: Columns) -> Int64[np.ndarray, "m"]:
    """Rays that meet the body's bounding sphere."""
    to_centre = body.position[:, None] - origins
    along = dot(to_centre, directions)
    radius = np.float32(body.shape.bounding_radius)
    return np.flatnonzero((dot(to_centre, to_centre) - along * along <= radius * radius) & (along > -radius))


def _intersect(
    body: Body, origins: Columns, directions: Columns, rays: Int64[np.ndarray, "m"]
) -> Float32[np.ndarray, "m"]:
    """Distance along the chosen rays to the body, inf where they miss it."""
    starts = body.rotation.T @ (_choose(origins, rays) - body.position[:, None])
    ways = body.rotation.T @ _choose(directions, rays)
    shape = (3, rays.size)
    return body.shape.intersect(np.broadcast_to(starts, shape), np.broadcast_to(ways, shape))


def _choose(columns: Columns, rays: Int64[np.ndarray, "m"]) -> Float32[np.ndarray, "3 #m"]:
    return columns if columns.shape[1] == 1 else columns.take(rays, axis=1)
