"""Scenes as a pure function of (seed, index)."""

import colorsys
import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from maskpre.data.scenes.camera import Camera
from maskpre.data.scenes.patterns import PATTERNS, Pattern, PatternName
from maskpre.data.scenes.ranges import SceneRanges
from maskpre.data.scenes.scene import Background, Body, Light, Scene
from maskpre.data.scenes.shapes import Box, Cone, Cylinder, Shape, Sphere, Torus
from maskpre.data.scenes.vectors import Vector, rotation, vector

ShapeName = Literal["sphere", "box", "cylinder", "cone", "torus"]


def _sphere(rng: np.random.Generator, scale: float) -> Shape:
    return Sphere(radius=scale)


def _box(rng: np.random.Generator, scale: float) -> Shape:
    x, y, z = (float(edge) for edge in rng.uniform(0.68, 0.9, 3) * scale)
    return Box(half_edges=(x, y, z))


def _cylinder(rng: np.random.Generator, scale: float) -> Shape:
    return Cylinder(radius=scale * rng.uniform(0.6, 0.72), half_height=scale * rng.uniform(0.85, 1.05))


def _cone(rng: np.random.Generator, scale: float) -> Shape:
    return Cone(radius=scale * rng.uniform(0.95, 1.1), height=scale * rng.uniform(1.9, 2.2))


def _torus(rng: np.random.Generator, scale: float) -> Shape:
    return Torus(ring=scale * rng.uniform(0.72, 0.8), tube=scale * rng.uniform(0.33, 0.4))


SHAPES: dict[ShapeName, Callable[[np.random.Generator, float], Shape]] = {
    "sphere": _sphere,
    "box": _box,
    "cylinder": _cylinder,
    "cone": _cone,
    "torus": _torus,
}
"""In label order: how to draw the proportions of a shape of a given scale."""

CLASS_NAMES: tuple[str, ...] = tuple(f"{shape} {pattern}" for shape in SHAPES for pattern in PATTERNS)


def label_of(*, seed: int, index: int) -> int:
    """The class of a scene; every block of 20 consecutive indices from a multiple of 20 holds each once."""
    return balanced_label(seed=seed, index=index, classes=len(CLASS_NAMES))


def balanced_label(*, seed: int, index: int, classes: int) -> int:
    """One of `classes` labels; every block of that many consecutive indices holds each once."""
    block, place = divmod(index, classes)
    order = np.random.Generator(np.random.Philox(key=[seed, block], counter=1 << 192))
    return int(order.permutation(classes)[place])


def sample_scene(*, seed: int, index: int, ranges: SceneRanges) -> Scene:
    """Draw scene `index` of the collection `seed`; both are at least 0 and below 2 ** 64.

    The same arguments give the same scene; numpy promises that for its generators within one version.
    """
    rng = np.random.Generator(np.random.Philox(key=[seed, index]))
    label = label_of(seed=seed, index=index)
    shape = tuple(SHAPES)[label // len(PATTERNS)]
    pattern = tuple(PATTERNS)[label % len(PATTERNS)]
    camera = sample_camera(rng, ranges)
    main = _main_body(rng, ranges, shape=shape, pattern=pattern)
    count = int(rng.integers(ranges.occluders[0], ranges.occluders[1] + 1))
    occluders = tuple(_occluder(rng, ranges, main=main, camera=camera) for _ in range(count))
    return Scene(
        bodies=(main, *occluders),
        light=sample_light(rng, ranges),
        background=sample_background(rng, ranges),
        camera=camera,
        label=label,
    )


def sample_camera(rng: np.random.Generator, ranges: SceneRanges) -> Camera:
    """Draw a camera that looks at the middle of the scene."""
    elevation = math.radians(rng.uniform(*ranges.camera_elevation))
    azimuth = _angle(rng, ranges.camera_azimuth)
    target = vector(0.0, 0.9, 0.0)
    return Camera(
        position=target + 6.2 * on_sphere(azimuth=azimuth, elevation=elevation),
        target=target,
        field_of_view=math.radians(36),
        velocity=_slide(rng, ranges),
    )


def _main_body(
    rng: np.random.Generator, ranges: SceneRanges, *, shape: ShapeName, pattern: PatternName
) -> Body:
    x, z = rng.uniform(-ranges.offset, ranges.offset, 2)
    return sample_body(
        rng,
        ranges,
        shape=SHAPES[shape](rng, rng.uniform(*ranges.size)),
        pattern=pattern,
        place=(x, z),
        turn=ranges.rotation,
    )


def _occluder(rng: np.random.Generator, ranges: SceneRanges, *, main: Body, camera: Camera) -> Body:
    """A small plain body on the ground between the main one and the camera, near the line between them."""
    shape = tuple(SHAPES.values())[rng.integers(len(SHAPES))](rng, rng.uniform(*ranges.occluder_size))
    towards = camera.position - main.position
    towards = towards / np.hypot(towards[0], towards[2])
    ahead = main.shape.bounding_radius + rng.uniform(0.2, 0.6)
    aside = rng.uniform(-1.0, 1.0)
    x = main.position[0] + ahead * towards[0] + aside * towards[2]
    z = main.position[2] + ahead * towards[2] - aside * towards[0]
    return sample_body(rng, ranges, shape=shape, pattern="solid", place=(float(x), float(z)), turn=180.0)


def sample_body(
    rng: np.random.Generator,
    ranges: SceneRanges,
    *,
    shape: Shape,
    pattern: PatternName,
    place: tuple[float, float],
    turn: float,
) -> Body:
    """Draw a body on the ground at `place` (x, z), turned by up to `turn` degrees about each axis."""
    pose = rotation(yaw=_angle(rng, turn), pitch=_angle(rng, turn), roll=_angle(rng, turn))
    u, v = rng.uniform(0, 2, 2)
    cell = _fit(rng.uniform(*ranges.cell), shape.girth)
    return Body(
        shape=shape,
        position=vector(place[0], shape.support(-pose[1]), place[1]),
        rotation=pose,
        pattern=Pattern(name=pattern, cell=cell, phase=(u, v)),
        tones=_tones(rng, ranges),
        velocity=_slide(rng, ranges),
        spin=rng.uniform(-ranges.spin, ranges.spin),
    )


def _fit(cell: float, girth: float | None) -> float:
    """The nearest width of which an even number goes around the shape, so that patterns close."""
    return cell if girth is None else girth / (2 * max(round(girth / (2 * cell)), 1))


def _tones(rng: np.random.Generator, ranges: SceneRanges) -> tuple[Vector, Vector]:
    """A dark and a light colour of one hue family, in random order."""
    hue = rng.random()
    other_hue = hue + rng.uniform(-ranges.hue_spread, ranges.hue_spread)
    dark = _colour(hue, rng.uniform(0.3, 0.8), rng.uniform(*ranges.dark_tone))
    light = _colour(other_hue, rng.uniform(0.1, 0.6), rng.uniform(*ranges.light_tone))
    return (dark, light) if rng.random() < 0.5 else (light, dark)


def sample_light(rng: np.random.Generator, ranges: SceneRanges) -> Light:
    """Draw a light."""
    elevation = math.radians(rng.uniform(*ranges.light_elevation))
    ambient = rng.uniform(*ranges.ambient)
    return Light(
        direction=on_sphere(azimuth=_angle(rng, ranges.light_azimuth), elevation=elevation),
        strength=1.1 - ambient,
        ambient=ambient,
        width=rng.uniform(*ranges.light_width),
    )


def sample_background(rng: np.random.Generator, ranges: SceneRanges) -> Background:
    """Draw ground and sky."""
    hue, saturation = rng.random(), rng.uniform(0.05, 0.45)
    value = rng.uniform(*ranges.ground_value)
    other_value = value + rng.uniform(-ranges.ground_contrast, ranges.ground_contrast)
    sky_hue = rng.random()
    frequencies = rng.uniform(*ranges.ground_frequency, 2)
    headings = rng.uniform(0, 2 * math.pi, 2)
    return Background(
        ground=(_colour(hue, saturation, value), _colour(hue, saturation, other_value)),
        horizon=_colour(sky_hue, rng.uniform(0.02, 0.25), rng.uniform(0.5, 0.95)),
        zenith=_colour(sky_hue, rng.uniform(0.1, 0.5), rng.uniform(0.35, 0.9)),
        waves=(frequencies * np.stack([np.cos(headings), np.sin(headings)])).astype(np.float32),
        phases=rng.uniform(0, 2 * math.pi, 2).astype(np.float32),
        haze=rng.uniform(15, 40),
    )


def _slide(rng: np.random.Generator, ranges: SceneRanges) -> Vector:
    heading, speed = rng.uniform(0, 2 * math.pi), rng.uniform(*ranges.speed)
    return vector(speed * math.cos(heading), 0.0, speed * math.sin(heading))


def _angle(rng: np.random.Generator, largest: float) -> float:
    return math.radians(rng.uniform(-largest, largest))


def on_sphere(*, azimuth: float, elevation: float) -> Vector:
    """The direction at two angles in radians; azimuth 0 is the z axis."""
    return vector(
        math.cos(elevation) * math.sin(azimuth),
        math.sin(elevation),
        math.cos(elevation) * math.cos(azimuth),
    )


def _colour(hue: float, saturation: float, value: float) -> Vector:
    return vector(*colorsys.hsv_to_rgb(hue % 1, saturation, min(max(value, 0.0), 1.0)))
