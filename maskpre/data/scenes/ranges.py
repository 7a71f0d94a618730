"""How much scenes vary: the knobs that make the task easier or harder."""

from dataclasses import dataclass
from typing import TypeAlias

Interval: TypeAlias = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class SceneRanges:
    """Uniform intervals that scenes are drawn from; lengths are in the unit of a typical object's radius.

    The defaults keep a raw-pixel classifier poor while minutes of training on a CPU learn visibly. Wider
    rotations, weaker tone contrast, smaller cells, busier ground and more occluders make it harder.
    """

    rotation: float = 30.0
    """Largest turn of the main object about each axis, in degrees."""
    size: Interval = (0.9, 1.2)
    """Scale of the main object."""
    offset: float = 0.6
    """Largest shift of the main object along the ground, in each of the two directions."""
    cell: Interval = (0.28, 0.4)
    """Width of a pattern's cell; a pixel of a 64 x 64 picture is about 0.065."""
    dark_tone: Interval = (0.08, 0.3)
    """Value (HSV) of the dark tone."""
    light_tone: Interval = (0.75, 0.98)
    """Value (HSV) of the light tone."""
    hue_spread: float = 0.06
    """Largest difference in hue between an object's two tones, in turns of the colour circle."""
    occluders: tuple[int, int] = (0, 2)
    """Fewest and most small objects in front of the main one."""
    occluder_size: Interval = (0.16, 0.3)
    """Scale of an occluder."""
    ground_value: Interval = (0.35, 0.75)
    """Value (HSV) of the ground's two colours."""
    ground_contrast: float = 0.2
    """Largest difference in value between the ground's two colours."""
    ground_frequency: Interval = (0.3, 1.2)
    """Radians per unit of length of the waves that mix them: a few make a smooth ground, many a busy one."""
    light_elevation: Interval = (35.0, 70.0)
    """Degrees above the horizon."""
    light_azimuth: float = 75.0
    """Largest angle between the light and the camera around the vertical, in degrees."""
    light_width: Interval = (0.1, 0.35)
    """Edge of the light over its distance: the softness of shadows."""
    ambient: Interval = (0.4, 0.55)
    """Light that reaches also the shadows."""
    camera_elevation: Interval = (12.0, 32.0)
    """Degrees above the horizon."""
    camera_azimuth: float = 8.0
    """Largest angle of the camera around the vertical, in degrees."""
    speed: Interval = (0.2, 0.8)
    """Units of length per unit of time, for scenes at a time other than 0."""
    spin: float = 0.8
    """Largest turn about the vertical, in radians per unit of time."""
