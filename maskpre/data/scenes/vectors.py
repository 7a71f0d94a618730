"""Vector arithmetic on columns: an array of n vectors has shape (3, n), so each component is contiguous."""

import math
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32, Int64

Vector: TypeAlias = Float32[np.ndarray, "3"]
Matrix: TypeAlias = Float32[np.ndarray, "3 3"]
Scalars: TypeAlias = Float32[np.ndarray, "n"]
Vectors: TypeAlias = Float32[np.ndarray, "3 n"]
Columns: TypeAlias = Float32[np.ndarray, "3 #n"]
"""One vector per ray, or a single column that all rays share."""


def vector(x: float, y: float, z: float) -> Vector:
    """A single vector; y points up, and the camera looks roughly along -z."""
    return np.array([x, y, z], np.float32)


def dot(a: Columns, b: Columns) -> Float32[np.ndarray, "#n"]:
    """Scalar products, column by column."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def unit(a: Float32[np.ndarray, "3 *n"]) -> Float32[np.ndarray, "3 *n"]:
    """Vectors scaled to length 1."""
    x, y, z = a
    return a / np.sqrt(x * x + y * y + z * z)


def cross(a: Vector, b: Vector) -> Vector:
    """The vector product; numpy's takes ten times as long for a single pair."""
    (ax, ay, az), (bx, by, bz) = a, b
    return np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], np.float32)


def put_columns(a: Vectors, places: Int64[np.ndarray, "m"], columns: Float32[np.ndarray, "3 m"]) -> None:
    """Overwrite some columns; numpy's a[:, places] = columns takes three times as long."""
    for row, values in zip(a, columns, strict=True):
        row[places] = values


def rotation(*, yaw: float, pitch: float, roll: float) -> Matrix:
    """Rotation by `roll` about z, then `pitch` about x, then `yaw` about y (right-handed, radians)."""
    (cy, sy), (cp, sp), (cr, sr) = ((math.cos(a), math.sin(a)) for a in (yaw, pitch, roll))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return (about_y @ about_x @ about_z).astype(np.float32)
