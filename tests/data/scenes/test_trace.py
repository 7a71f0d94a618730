import numpy as np

from maskpre.data.scenes.patterns import Pattern
from maskpre.data.scenes.scene import Body
from maskpre.data.scenes.shapes import Shape, Sphere, Torus
from maskpre.data.scenes.trace import FIRST_BODY, GROUND, SKY, first_hits, shadowed
from maskpre.data.scenes.vectors import rotation, vector

DOWN = vector(0.0, -1.0, 0.0)[:, None]
UP = vector(0.0, 1.0, 0.0)[:, None]


def _body(shape: Shape, *position: float, pitch: float = 0.0) -> Body:
    return Body(
        shape=shape,
        position=vector(*position),
        rotation=rotation(yaw=0.0, pitch=pitch, roll=0.0),
        pattern=Pattern(name="solid", cell=0.3, phase=(0.0, 0.0)),
        tones=(vector(1.0, 1.0, 1.0), vector(0.0, 0.0, 0.0)),
        velocity=vector(0.0, 0.0, 0.0),
        spin=0.0,
    )


def test_nearest_of_sky_ground_and_bodies_wins() -> None:
    bodies = (_body(Sphere(radius=1.0), 0.0, 1.0, 0.0), _body(Sphere(radius=0.25), 0.0, 2.5, 0.0))
    directions = np.concatenate([DOWN, vector(3.0, -5.0, 0.0)[:, None] / np.sqrt(np.float32(34)), UP], axis=1)
    hits = first_hits(bodies, vector(0.0, 5.0, 0.0)[:, None], directions)
    assert hits.owner.tolist() == [FIRST_BODY + 1, GROUND, SKY]
    np.testing.assert_allclose(hits.distance, [2.25, np.sqrt(34), np.inf], rtol=1e-6)


def test_order_of_bodies_does_not_matter() -> None:
    near, far = _body(Sphere(radius=0.25), 0.0, 2.5, 0.0), _body(Sphere(radius=1.0), 0.0, 1.0, 0.0)
    for bodies in ((near, far), (far, near)):
        hits = first_hits(bodies, vector(0.0, 5.0, 0.0)[:, None], DOWN)
        np.testing.assert_allclose(hits.distance, [2.25], rtol=1e-6)


def test_shadow_of_a_lying_torus_has_a_hole() -> None:
    torus = _body(Torus(ring=1.0, tube=0.25), 0.0, 1.0, 0.0, pitch=np.pi / 2)
    points = np.array([[0, 0.5, 0.8, 1, 1.2, 1.5], [0.01] * 6, [0] * 6], np.float32)
    assert shadowed((torus,), points, UP).tolist() == [False, False, True, True, True, False]


def test_shadow_needs_the_body_between_point_and_light() -> None:
    sphere = _body(Sphere(radius=0.5), 0.0, 2.0, 0.0)
    points = np.array([[0, 0], [1, 3], [0, 0]], np.float32)
    assert shadowed((sphere,), points, UP).tolist() == [True, False]
    assert shadowed((sphere,), points, DOWN).tolist() == [False, True]
