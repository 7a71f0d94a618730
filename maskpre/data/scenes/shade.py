"""Colour of what the rays met."""

from dataclasses import dataclass

import numpy as np

from maskpre.data.scenes.scene import Background, Body, Scene
from maskpre.data.scenes.trace import FIRST_BODY, SKY, Hits, shadowed
from maskpre.data.scenes.vectors import Scalars, Vector, Vectors, put_columns, vector

_LIFT = 2e-3
"""Shadow rays start this far above the surface, so that it does not shadow itself."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Surfaces:
    """World positions, outward normals of length 1, and RGB albedo in 0..1 of the n points that rays met.

    Where a ray meets the sky it has the camera's position and the ground's normal and albedo.
    """

    points: Vectors
    normals: Vectors
    albedo: Vectors


def surfaces(scene: Scene, directions: Vectors, hits: Hits) -> Surfaces:
    """What lies where the rays from the scene's camera ended."""
    reach = np.where(hits.owner == SKY, np.float32(0), hits.distance)
    points = scene.camera.position[:, None] + directions * reach
    normals = np.repeat(vector(0.0, 1.0, 0.0)[:, None], points.shape[1], axis=1)
    albedo = ground_albedo(scene.background, points)
    for number, body in enumerate(scene.bodies):
        own = np.flatnonzero(hits.owner == FIRST_BODY + number)
        own_normals, own_albedo = _body_surface(body, points.take(own, axis=1))
        put_columns(normals, own, own_normals)
        put_columns(albedo, own, own_albedo)
    return Surfaces(points=points, normals=normals, albedo=albedo)


def shade(scene: Scene, directions: Vectors, hits: Hits, *, towards_light: Vector) -> Vectors:
    """RGB that each ray brings back: 0..1, somewhat above where light falls straight on a pale surface.

    Shadows are cast along `towards_light`, one place of the light.
    """
    background = scene.background
    surface = surfaces(scene, directions, hits)
    lit = surface.albedo * _irradiance(scene, surface, towards_light)
    clear = np.exp(hits.distance * np.float32(-1 / background.haze))
    horizon = background.horizon[:, None]
    return np.where(hits.owner == SKY, _sky(background, directions), horizon + (lit - horizon) * clear)


def ground_albedo(background: Background, points: Vectors) -> Vectors:
    """The two ground colours, mixed by a sum of waves over the plane."""
    waves = np.sin(background.waves.T @ points[::2] + background.phases[:, None])
    mixture = np.float32(0.5) + np.float32(0.5) * waves.mean(axis=0)
    first, second = (colour[:, None] for colour in background.ground)
    return first + (second - first) * mixture


def _body_surface(body: Body, points: Vectors) -> tuple[Vectors, Vectors]:
    local = body.rotation.T @ (points - body.position[:, None])
    normals = body.shape.normals(local)
    second = body.pattern.second_tone(body.shape.coordinates(local, normals))
    first_tone, second_tone = (tone[:, None] for tone in body.tones)
    return body.rotation @ normals, np.where(second, second_tone, first_tone)


def _sky(background: Background, directions: Vectors) -> Vectors:
    height = np.clip(directions[1] * np.float32(2.5), 0, 1)
    return background.horizon[:, None] + (background.zenith - background.horizon)[:, None] * height


def _irradiance(scene: Scene, surface: Surfaces, towards_light: Vector) -> Scalars:
    """Lambert's cosine law with shadows, plus ambient light that comes mostly from above."""
    light = scene.light
    facing = np.maximum(towards_light @ surface.normals, 0)
    lit = np.flatnonzero(facing > 0)
    starts = surface.points.take(lit, axis=1) + surface.normals.take(lit, axis=1) * np.float32(_LIFT)
    dark = shadowed(scene.bodies, starts, towards_light[:, None])
    facing[lit[dark]] = 0
    ambient = np.float32(light.ambient) * (np.float32(0.75) + np.float32(0.25) * surface.normals[1])
    return ambient + np.float32(light.strength) * facing
