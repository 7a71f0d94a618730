import math

import numpy as np
import pytest

from maskpre.data.scenes.camera import Camera
from maskpre.data.scenes.vectors import vector

CAMERA = Camera(
    position=vector(0.0, 1.0, 5.0),
    target=vector(0.0, 1.0, 0.0),
    field_of_view=math.radians(60),
    velocity=vector(1.0, 0.0, 2.0),
)


def test_rays_fan_out_from_the_top_left() -> None:
    rays = CAMERA.directions(size=3).reshape(3, 3, 3)
    np.testing.assert_allclose(rays[:, 1, 1], [0, 0, -1], atol=1e-6)
    assert rays[0, 0, 0] < 0 < rays[0, 0, 2]
    assert rays[1, 2, 0] < 0 < rays[1, 0, 0]
    np.testing.assert_allclose(np.linalg.norm(rays, axis=0), 1, rtol=1e-6)


def test_edges_of_the_picture_are_the_field_of_view_apart() -> None:
    left = CAMERA.directions(size=1, place=(0.0, 0.5))[:, 0]
    right = CAMERA.directions(size=1, place=(1.0, 0.5))[:, 0]
    top = CAMERA.directions(size=1, place=(0.5, 0.0))[:, 0]
    assert math.degrees(math.acos(left @ right)) == pytest.approx(60, abs=1e-3)
    np.testing.assert_allclose(top, [0, 0.5, -math.sqrt(0.75)], atol=1e-6)


def test_axes_are_right_handed_and_orthonormal() -> None:
    camera = Camera(
        position=vector(3.0, 4.0, 5.0),
        target=vector(-1.0, 0.0, 1.0),
        field_of_view=1.0,
        velocity=vector(0.0, 0.0, 0.0),
    )
    np.testing.assert_allclose(camera.axes.T @ camera.axes, np.eye(3), atol=1e-6)
    right, up, forward = camera.axes.T
    np.testing.assert_allclose(np.cross(right, up), -forward, atol=1e-6)
    assert up[1] > 0


def test_movement_keeps_the_view_direction() -> None:
    later = CAMERA.at(2.0)
    np.testing.assert_allclose(later.position, [2, 1, 9])
    np.testing.assert_allclose(later.axes, CAMERA.axes)
