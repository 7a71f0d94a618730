"""Colour of what the rays met."""

from dataclasses import dataclass

import numpy as np

from maskpre.data.scenes.scene import Background, Body, Scene
from maskpre.data.scenes.trace import FIRST_BODY, GROUND, SKY, Hits, shadowed
from maskpre.data.scenes.vectors import Scalars, Vector, Vectors

_LIFT = 2e-3
"""Shadow rays start this far above the surface, so that it does not shadow itself."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Surfaces:
    """World positions, outward normals of length 1, and RGB albedo in 0..1 of n points that rays met."""

    points: Vectors
    normals: Vectors
    albedo: Vectors


def surfaces(scene: Scene, directions: Vectors, hits: Hits) -> Surfaces:
    """What lies at the hits, which must not include the sky."""
    points = scene.camera.position[:, None] + directions * hits.distance
    normals = np.zeros_like(points)
    albedo = np.empty_like(points)
    ground = np.flatnonzero(hits.owner == GROUND)
    normals[1, ground] = 1
    albedo[:, ground] = ground_albedo(scene.background, points[:, ground])
    for number, body in enumerate(scene.bodies):
        own = np.flatnonzero(hits.owner == FIRST_BODY + number)
        normals[:, own], albedo[:, own] = _body_surface(body, points[:, own])
    return Surfaces(points=points, normals=normals, albedo=albedo)


def shade(scene: Scene, directions: Vectors, hits: Hits, *, towards_light: Vector) -> Vectors:
    """RGB that each ray brings back: 0..1, somewhat above where light falls straight on a pale surface.

    Shadows are cast along `towards_light`, one place of the light.
    """
    colours = _sky(scene.background, directions)
    solid = np.flatnonzero(hits.owner != SKY)
    met = Hits(distance=hits.distance[solid], owner=hits.owner[solid])
    surface = surfaces(scene, directions[:, solid], met)
    lit = surface.albedo * _irradiance(scene, surface, towards_light)
    clear = np.exp(met.distance * np.float32(-1 / scene.background.haze))
    horizon = scene.background.horizon[:, None]
    colours[:, solid] = horizon + (lit - horizon) * clear
    return colours


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
    starts = surface.points[:, lit] + surface.normals[:, lit] * np.float32(_LIFT)
    dark = shadowed(scene.bodies, starts, towards_light[:, None])
    facing[lit[dark]] = 0
    ambient = np.float32(light.ambient) * (np.float32(0.75) + np.float32(0.25) * surface.normals[1])
    return ambient + np.float32(light.strength) * facing
