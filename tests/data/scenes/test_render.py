import dataclasses

import numpy as np

from maskpre.data.scenes import Scene, SceneRanges, render, sample_camera, sample_scene
from maskpre.data.scenes.camera import Camera
from maskpre.data.scenes.render import Output

RANGES = SceneRanges()
GEOMETRY: tuple[Output, ...] = ("depth", "segmentation", "points", "normals")


def _scene(index: int = 0) -> Scene:
    return sample_scene(seed=0, index=index, ranges=RANGES)


def _project(camera: Camera, points: np.ndarray, size: int) -> np.ndarray:
    """Column and row (not rounded) and depth of world points (..., 3)."""
    right, up, depth = np.moveaxis((points - camera.position) @ camera.axes, -1, 0)
    focal = size / 2 / np.tan(camera.field_of_view / 2)
    return np.stack([size / 2 + focal * right / depth - 0.5, size / 2 - focal * up / depth - 0.5, depth])


def test_image_is_rgb_bytes_and_only_what_was_asked_for_comes() -> None:
    rendering = render(_scene(), size=24)
    assert list(rendering) == ["image"]
    assert rendering["image"].shape == (24, 24, 3)
    assert rendering["image"].dtype == np.uint8
    assert set(render(_scene(), size=8, outputs=("depth", "image"))) == {"depth", "image"}


def test_geometry_agrees_with_the_camera() -> None:
    for index in range(6):
        scene = _scene(index)
        out = render(scene, size=32, outputs=GEOMETRY)
        solid = out["segmentation"] > 0
        columns, rows, depth = _project(scene.camera, out["points"], 32)
        grid = np.indices((32, 32))
        np.testing.assert_allclose(columns[solid], grid[1][solid], atol=1e-3)
        np.testing.assert_allclose(rows[solid], grid[0][solid], atol=1e-3)
        np.testing.assert_allclose(depth[solid], out["depth"][solid], rtol=1e-4)
        assert out["depth"][solid].min() > 0


def test_normals_face_the_camera_and_the_sky_is_empty() -> None:
    tilted = dataclasses.replace(RANGES, camera_elevation=(5.0, 6.0))
    for index in range(6):
        scene = sample_scene(seed=0, index=index, ranges=tilted)
        out = render(scene, size=32, outputs=GEOMETRY)
        sky = out["segmentation"] == 0
        assert sky.any()
        assert np.isinf(out["depth"][sky]).all()
        assert np.isnan(out["points"][sky]).all()
        assert (out["normals"][sky] == 0).all()
        normals, points = out["normals"][~sky], out["points"][~sky]
        np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
        ways = points - scene.camera.position
        ways /= np.linalg.norm(ways, axis=1, keepdims=True)
        assert (normals * ways).sum(axis=1).max() < 0.05


def test_segmentation_marks_the_ground_and_each_body() -> None:
    scene = next(s for s in map(_scene, range(40)) if len(s.bodies) == 3)
    out = render(scene, size=64, outputs=("segmentation", "points"))
    owner, points = out["segmentation"], out["points"]
    np.testing.assert_allclose(points[owner == 1][:, 1], 0, atol=1e-4)
    for number, body in enumerate(scene.bodies):
        own = points[owner == 2 + number]
        assert len(own) > 0
        away = np.linalg.norm(own - body.position, axis=1)
        assert away.max() < body.shape.bounding_radius + 1e-3


def test_second_camera_sees_the_same_surfaces() -> None:
    scene = _scene(3)
    other = sample_camera(np.random.default_rng(1), dataclasses.replace(RANGES, camera_azimuth=30.0))
    first = render(scene, size=64, outputs=GEOMETRY)
    second = render(scene, size=64, camera=other, outputs=GEOMETRY)
    assert (first["segmentation"] != second["segmentation"]).mean() > 0.02
    main = first["points"][first["segmentation"] == 2]
    columns, rows, depth = _project(other, main, 64)
    around = [np.roll(second["depth"], (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    pixels = rows.round().astype(int).clip(1, 62), columns.round().astype(int).clip(1, 62)
    seen, nearest = second["depth"][pixels], np.min(around, axis=0)[pixels]
    assert (nearest < depth + 0.05).all()
    assert (np.abs(seen - depth) < 0.15).mean() > 0.6


def test_time_moves_bodies_and_camera() -> None:
    scene = _scene(1)
    start, moved = scene.at(0.0), scene.at(1.0)
    np.testing.assert_array_equal(render(start, size=16)["image"], render(scene, size=16)["image"])
    assert (render(moved, size=16)["image"] != render(scene, size=16)["image"]).mean() > 0.2
    shift = moved.bodies[0].position - scene.bodies[0].position
    np.testing.assert_allclose(shift, scene.bodies[0].velocity, rtol=1e-5)
    assert RANGES.speed[0] <= np.linalg.norm(shift) <= RANGES.speed[1]


def test_supersampling_converges() -> None:
    fine = render(_scene(2), size=24, supersampling=8)["image"].astype(float)

    def error(supersampling: int) -> float:
        image = render(_scene(2), size=24, supersampling=supersampling)["image"]
        return float(np.abs(image - fine).mean())

    assert error(4) < error(2) < error(1)


def _darkening(scene: Scene) -> np.ndarray:
    """How much light the bodies take from the ground pixels that they don't touch, as a share."""
    bare = dataclasses.replace(scene, bodies=())
    owner = render(scene, size=48, outputs=("segmentation",))["segmentation"]
    shifts = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    ground = np.all([np.roll(owner, shift, (0, 1)) == 1 for shift in shifts], axis=0)
    left = render(scene, size=48, supersampling=4)["image"][ground].astype(float).sum(axis=1)
    return 1 - left / render(bare, size=48, supersampling=4)["image"][ground].sum(axis=1)


def test_shadow_darkens_part_of_the_ground_to_the_ambient_light() -> None:
    dark = _darkening(_scene(4))
    assert dark.min() > -0.01
    assert 0.02 < (dark > 0.1).mean() < 0.5
    light = _scene(4).light
    lost = light.strength * light.direction[1]
    assert 0.6 * lost / (lost + light.ambient) < dark.max() < 1.05 * lost / (lost + light.ambient)


def test_wider_light_has_softer_shadows() -> None:
    def penumbra(width: float) -> int:
        scene = _scene(4)
        dark = _darkening(dataclasses.replace(scene, light=dataclasses.replace(scene.light, width=width)))
        return int(((dark > 0.2 * dark.max()) & (dark < 0.8 * dark.max())).sum())

    assert penumbra(0.4) > 1.5 * penumbra(0.0)
