"""Vector arithmetic on columns: an array of n vectors has shape (3, n), so each component is contiguous."""

import math
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32

Vector: TypeAlias = Float32[np.ndarray, "3"]
Matrix: TypeAlias = Float32[np.ndarray, "3 3"]
Scalars: TypeAlias = Float32[np.ndarray, "n"]
Vectors: TypeAlias = Float32[np.ndarray, "3 n"]
Origins: TypeAlias = Float32[np.ndarray, "3 #n"]
"""One start per ray, or a single column when all rays start at the same point."""


def vector(x: float, y: float, z: float) -> Vector:
    """A single vector; y points up, and the camera looks roughly along -z."""
    return np.array([x, y, z], np.float32)


def dot(a: Float32[np.ndarray, "3 *#n"], b: Float32[np.ndarray, "3 *#n"]) -> Float32[np.ndarray, "*n"]:
    """Scalar products, column by column."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def unit(a: Float32[np.ndarray, "3 *n"]) -> Float32[np.ndarray, "3 *n"]:
    """Columns scaled to length 1; a zero column stays zero."""
    return a / np.maximum(np.sqrt(dot(a, a)), np.float32(1e-12))


def rotation(*, yaw: float, pitch: float, roll: float) -> Matrix:
    """Rotation by `roll` about z, then `pitch` about x, then `yaw` about y (right-handed, radians)."""
    (cy, sy), (cp, sp), (cr, sr) = ((math.cos(a), math.sin(a)) for a in (yaw, pitch, roll))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return (about_y @ about_x @ about_z).astype(np.float32)
