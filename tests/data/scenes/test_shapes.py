"""Every shape against its implicit function, evaluated densely along rays in float64."""

from collections.abc import Callable

import numpy as np
import pytest

from maskpre.data.scenes.shapes import Box, Cone, Cylinder, Shape, Sphere, Torus

Implicit = Callable[[np.ndarray], np.ndarray]


def _sphere(p: np.ndarray) -> np.ndarray:
    return np.linalg.norm(p, axis=0) - 0.9


def _box(p: np.ndarray) -> np.ndarray:
    return (np.abs(p) - np.array([0.5, 0.8, 0.65]).reshape(3, *[1] * (p.ndim - 1))).max(axis=0)


def _cylinder(p: np.ndarray) -> np.ndarray:
    return np.maximum(np.hypot(p[0], p[2]) - 0.6, np.abs(p[1]) - 0.9)


def _cone(p: np.ndarray) -> np.ndarray:
    slope = 0.9 / 1.8
    side = (np.hypot(p[0], p[2]) - slope * (0.9 - p[1])) / np.hypot(1, slope)
    return np.maximum(side, -0.9 - p[1])


def _torus(p: np.ndarray) -> np.ndarray:
    return np.hypot(np.hypot(p[0], p[1]) - 0.75, p[2]) - 0.35


CASES = [
    pytest.param(Sphere(radius=0.9), _sphere, id="sphere"),
    pytest.param(Box(half_edges=(0.5, 0.8, 0.65)), _box, id="box"),
    pytest.param(Cylinder(radius=0.6, half_height=0.9), _cylinder, id="cylinder"),
    pytest.param(Cone(radius=0.9, height=1.8), _cone, id="cone"),
    pytest.param(Torus(ring=0.75, tube=0.35), _torus, id="torus"),
]
shapes = pytest.mark.parametrize(("shape", "implicit"), CASES)

STEP = 0.005


def _rays(count: int = 700) -> tuple[np.ndarray, np.ndarray]:
    """From 4 units away towards points around the shape, a tenth of them along an axis."""
    rng = np.random.default_rng(0)
    origins = rng.normal(size=(3, count))
    origins *= 4 / np.linalg.norm(origins, axis=0)
    aims = rng.uniform(-1, 1, (3, count))
    directions = aims - origins
    axes = np.arange(count // 10) % 3
    directions[:, : count // 10] = 0
    directions[axes, np.arange(count // 10)] = -4
    origins[:, : count // 10] = aims[:, : count // 10] - directions[:, : count // 10]
    directions /= np.linalg.norm(directions, axis=0)
    return origins.astype(np.float32), directions.astype(np.float32)


def _hits(shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    origins, directions = _rays()
    distance = shape.intersect(origins, directions)
    met = np.isfinite(distance)
    return origins[:, met] + directions[:, met] * distance[met], directions[:, met]


@shapes
def test_intersect_agrees_with_marching(shape: Shape, implicit: Implicit) -> None:
    origins, directions = (a.astype(np.float64) for a in _rays())
    distance = shape.intersect(*_rays())
    steps = np.arange(2, 6, STEP)
    values = implicit(origins[:, :, None] + directions[:, :, None] * steps)
    lowest = values.min(axis=1)
    assert np.isfinite(distance[lowest < -0.005]).all()
    assert np.isinf(distance[lowest > 0.005]).all()
    clear = lowest < -0.005
    first = steps[(values < 0).argmax(axis=1)]
    assert clear.sum() > 150
    assert (~clear).sum() > 150
    assert np.abs(first - distance)[clear].max() < 2 * STEP


@shapes
def test_hits_lie_on_the_surface(shape: Shape, implicit: Implicit) -> None:
    points, _ = _hits(shape)
    assert np.abs(implicit(points.astype(np.float64))).max() < 2e-3


@shapes
def test_rays_that_start_beyond_the_shape_miss(shape: Shape, implicit: Implicit) -> None:
    origins, directions = _rays()
    assert np.isinf(shape.intersect(origins + 7 * directions, directions)).all()


@shapes
def test_shape_does_not_shadow_its_lit_side(shape: Shape, implicit: Implicit) -> None:
    """A convex shape never meets a ray that leaves it; a torus does, but not close to its start."""
    points, directions = _hits(shape)
    again = shape.intersect(points - 2e-3 * directions + 2e-3 * shape.normals(points), -directions)
    assert np.isinf(again).all()


@shapes
def test_normals_are_the_implicit_functions_gradient(shape: Shape, implicit: Implicit) -> None:
    points, directions = _hits(shape)
    normals = shape.normals(points)
    shifts = np.eye(3)[:, :, None] * 1e-4
    exact = points.astype(np.float64)
    gradient = np.stack([implicit(exact + s) - implicit(exact - s) for s in shifts])
    gradient /= np.maximum(np.linalg.norm(gradient, axis=0), 1e-12)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=0), 1, atol=1e-5)
    assert (normals * directions).sum(axis=0).max() < 0.06
    # Within float32's rounding of an edge either face's normal is right.
    assert ((normals * gradient).sum(axis=0) > 0.999).mean() > 0.995


@shapes
def test_support_and_bounding_radius_bound_the_surface(shape: Shape, implicit: Implicit) -> None:
    points, _ = _hits(shape)
    assert np.linalg.norm(points, axis=0).max() < shape.bounding_radius + 2e-3
    for direction in np.random.default_rng(1).normal(size=(20, 3)):
        unit = (direction / np.linalg.norm(direction)).astype(np.float32)
        reached = float((unit @ points).max())
        assert reached - 2e-3 < shape.support(unit) < reached + 0.12


@shapes
def test_coordinates_keep_small_distances(shape: Shape, implicit: Implicit) -> None:
    """Neighbours on the front of the surface are neighbours on the unrolled one: patterns don't jump."""
    points, _ = _hits(shape)
    normals = shape.normals(points)
    front = (normals[2] > 0.3) & (np.hypot(points[0], points[2]) > 0.2)
    points, normals = points[:, front], normals[:, front]
    flat = shape.coordinates(points, normals)
    gap = np.linalg.norm(points[:, :, None] - points[:, None], axis=0)
    same_face = (normals[:, :, None] * normals[:, None]).sum(axis=0) > 0.95
    near = (gap < 0.1) & (gap > 0) & same_face
    apart = np.abs(flat[:, :, None] - flat[:, None])
    if shape.girth is not None:
        apart = np.minimum(apart, np.abs(apart - shape.girth))
    stretch = np.linalg.norm(apart, axis=0)[near] / gap[near]
    assert near.sum() > 50
    assert stretch.max() < 3
