"""Clips of a moving scene, as a pure function of (seed, index), whose label shows in the motion alone.

Four coordinates say how the camera sees the main body; each is cyclic and, at the start of a clip, uniform
in [0, 1). A class moves one of them at a steady pace. A uniform coordinate shifted by any amount is uniform
again, so frame k has the same distribution whatever k and the class are: no single frame tells the label.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Float64

from maskpre.data.scenes.camera import Camera
from maskpre.data.scenes.patterns import PatternName
from maskpre.data.scenes.ranges import Interval, SceneRanges
from maskpre.data.scenes.sample import (
    SHAPES,
    balanced_label,
    on_sphere,
    sample_background,
    sample_body,
    sample_light,
)
from maskpre.data.scenes.scene import Background, Body, Light, Scene
from maskpre.data.scenes.vectors import rotation, vector

Coordinate = Literal["across", "depth", "turn", "azimuth"]
State: TypeAlias = Float64[np.ndarray, "4"]
"""A value in [0, 1) for each coordinate, in the order of the Literal."""

_COORDINATES: tuple[Coordinate, ...] = get_args(Coordinate)
_PATTERNS: tuple[PatternName, ...] = ("checker", "dots")
"""Those that look different when turned about the vertical."""


@dataclass(frozen=True, kw_only=True)
class Motion:
    """A class of clips: which coordinate moves, and the interval of its pace in cycles per frame."""

    name: str
    coordinate: Coordinate
    pace: Interval


_SLOW, _FAST = (0.022, 0.032), (0.055, 0.075)


def _backwards(interval: Interval) -> Interval:
    return -interval[0], -interval[1]


MOTIONS: tuple[Motion, ...] = (
    Motion(name="slides right slowly", coordinate="across", pace=_SLOW),
    Motion(name="slides left slowly", coordinate="across", pace=_backwards(_SLOW)),
    Motion(name="slides right fast", coordinate="across", pace=_FAST),
    Motion(name="slides left fast", coordinate="across", pace=_backwards(_FAST)),
    Motion(name="moves away", coordinate="depth", pace=(0.025, 0.04)),
    Motion(name="comes closer", coordinate="depth", pace=(-0.025, -0.04)),
    Motion(name="turns anticlockwise", coordinate="turn", pace=(0.013, 0.022)),
    Motion(name="turns clockwise", coordinate="turn", pace=(-0.013, -0.022)),
    Motion(name="camera circles anticlockwise", coordinate="azimuth", pace=(0.011, 0.018)),
    Motion(name="camera circles clockwise", coordinate="azimuth", pace=(-0.011, -0.018)),
)
"""In label order; turns and circles are as seen from above."""


_SCENES = SceneRanges(
    rotation=25.0,
    size=(0.85, 1.1),
    cell=(0.4, 0.6),
    ground_contrast=0.4,
    ground_frequency=(0.8, 2.0),
    light_azimuth=180.0,
    light_elevation=(45.0, 75.0),
    camera_elevation=(15.0, 32.0),
)


@dataclass(frozen=True, kw_only=True)
class ClipRanges:
    """What clips are drawn from; lengths are in the unit of a typical object's radius.

    Light and ground have no preferred direction, so that circling around them changes no distribution.
    """

    scene: SceneRanges = _SCENES
    distance: Interval = (4.6, 8.6)
    """From the camera to the main body along the optical axis."""
    reach: float = 0.75
    """How far the main body goes to either side, as a share of half the picture's width."""


_CAMERA_DISTANCE = 6.2
_TARGET_HEIGHT = 0.7
_FIELD_OF_VIEW = math.radians(36)


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """All that a clip is made of but its motion: the same clip can be shown with any.

    `body` stands at the origin, unturned; `elevation` is the camera's, in radians; `start` is the state of
    frame 0, and `pace` in [0, 1) says where in a motion's interval the pace lies.
    """

    body: Body
    light: Light
    background: Background
    elevation: float
    start: State
    pace: float
    ranges: ClipRanges

    def state(self, motion: Motion, frame: int) -> State:
        """The coordinates at `frame`."""
        slowest, fastest = motion.pace
        moved = frame * (slowest + self.pace * (fastest - slowest))
        shift = np.array([moved if name == motion.coordinate else 0.0 for name in _COORDINATES])
        return (self.start + shift) % 1.0

    def scene(self, motion: Motion, frame: int) -> Scene:
        """The scene at `frame`, labelled with the motion's number.

        The body moves in front of a still camera, or the camera circles around a still body: the world's
        origin is where the body stood in frame 0.
        """
        _, _, turn, azimuth = self.state(motion, frame)
        across, depth = self._ground_place(motion, frame)
        first_across, first_depth = self._ground_place(motion, 0)
        angle = 2 * math.pi * azimuth
        right = vector(math.cos(angle), 0.0, -math.sin(angle))
        ahead = vector(-math.sin(angle), 0.0, -math.cos(angle))
        moved = right * np.float32(across - first_across) + ahead * np.float32(depth - first_depth)
        first = right * np.float32(first_across) + ahead * np.float32(first_depth)
        target = vector(0.0, _TARGET_HEIGHT, 0.0) - first
        body = replace(
            self.body,
            position=self.body.position + moved,
            rotation=rotation(yaw=2 * math.pi * turn, pitch=0.0, roll=0.0) @ self.body.rotation,
        )
        camera = Camera(
            position=target
            + on_sphere(azimuth=angle, elevation=self.elevation) * np.float32(_CAMERA_DISTANCE),
            target=target,
            field_of_view=_FIELD_OF_VIEW,
            velocity=vector(0.0, 0.0, 0.0),
        )
        return Scene(
            bodies=(body,),
            light=self.light,
            background=self.background,
            camera=camera,
            label=MOTIONS.index(motion),
        )

    def _ground_place(self, motion: Motion, frame: int) -> tuple[float, float]:
        """Where the body stands relative to what the camera looks at: to the right, and ahead."""
        across, depth, _, _ = self.state(motion, frame)
        near, far = self.ranges.distance
        distance = near + depth * (far - near)
        half_width = math.tan(_FIELD_OF_VIEW / 2) * distance
        ahead = (distance - _CAMERA_DISTANCE) / math.cos(self.elevation)
        return (2 * across - 1) * self.ranges.reach * half_width, ahead


def motion_of(*, seed: int, index: int) -> int:
    """The class of a clip; every block of 10 consecutive indices from a multiple of 10 holds each once."""
    return balanced_label(seed=seed, index=index, classes=len(MOTIONS))


def sample_clip(*, seed: int, index: int, ranges: ClipRanges) -> Clip:
    """Draw clip `index` of the collection `seed`, independently of its label."""
    rng = np.random.Generator(np.random.Philox(key=[seed, index], counter=1 << 193))
    shape = tuple(SHAPES)[rng.integers(len(SHAPES))]
    body = sample_body(
        rng,
        ranges.scene,
        shape=SHAPES[shape](rng, rng.uniform(*ranges.scene.size)),
        pattern=_PATTERNS[rng.integers(len(_PATTERNS))],
        place=(0.0, 0.0),
        turn=ranges.scene.rotation,
    )
    return Clip(
        body=body,
        light=sample_light(rng, ranges.scene),
        background=sample_background(rng, ranges.scene),
        elevation=math.radians(rng.uniform(*ranges.scene.camera_elevation)),
        start=rng.random(len(_COORDINATES)),
        pace=rng.random(),
        ranges=ranges,
    )
