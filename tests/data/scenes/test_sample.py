import numpy as np
import pytest

from maskpre.data.scenes import CLASS_NAMES, Scene, SceneRanges, label_of, render, sample_scene
from maskpre.data.scenes.vectors import vector

RANGES = SceneRanges()


def _scene(index: int, *, seed: int = 0) -> Scene:
    return sample_scene(seed=seed, index=index, ranges=RANGES)


def test_twenty_distinct_class_names() -> None:
    assert len(set(CLASS_NAMES)) == 20
    assert CLASS_NAMES[:5] == ("sphere solid", "sphere stripes", "sphere checker", "sphere dots", "box solid")


def test_every_block_of_twenty_indices_holds_each_class_once() -> None:
    orders = [[label_of(seed=3, index=block * 20 + place) for place in range(20)] for block in range(50)]
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert len({tuple(order) for order in orders}) > 45


def test_label_names_the_main_body() -> None:
    for index in range(40):
        scene = _scene(index)
        main = scene.bodies[0]
        assert scene.label == label_of(seed=0, index=index)
        assert CLASS_NAMES[scene.label] == f"{type(main.shape).__name__.lower()} {main.pattern.name}"


def test_pixels_depend_on_seed_and_index_alone() -> None:
    def pixels(indices: list[int], seed: int) -> dict[int, bytes]:
        return {i: render(_scene(i, seed=seed), size=16)["image"].tobytes() for i in indices}

    forwards = pixels([0, 1, 2, 2**40], seed=5)
    assert pixels([2**40, 2, 1, 0], seed=5) == forwards
    assert len(set(forwards.values()) | set(pixels([0, 1], seed=6).values())) == 6


def test_bodies_rest_on_the_ground_and_keep_resting() -> None:
    for index in range(20):
        for scene in (_scene(index), _scene(index).at(1.5)):
            for body in scene.bodies:
                down = body.rotation.T @ vector(0.0, -1.0, 0.0)
                assert body.shape.support(down) == pytest.approx(body.position[1], abs=1e-4)


def test_main_body_is_large_and_mostly_unobstructed() -> None:
    shares = []
    for index in range(100):
        scene = _scene(index)
        owner = render(scene, size=32, outputs=("segmentation",))["segmentation"]
        shares.append((owner == 2).mean())
    assert min(shares) > 0.04
    assert 0.1 < np.median(shares) < 0.4


def test_occluders_vary_within_their_range() -> None:
    counts = {len(_scene(index).bodies) - 1 for index in range(40)}
    assert counts == {0, 1, 2}
    none = sample_scene(seed=0, index=0, ranges=SceneRanges(occluders=(0, 0)))
    assert len(none.bodies) == 1


def test_rotation_range_limits_the_pose() -> None:
    upright = SceneRanges(rotation=0.0)
    for index in range(5):
        scene = sample_scene(seed=0, index=index, ranges=upright)
        np.testing.assert_allclose(scene.bodies[0].rotation, np.eye(3), atol=1e-6)
    assert all(_scene(index).bodies[0].rotation[1, 1] > 0.7 for index in range(50))


def test_tones_are_one_dark_and_one_light() -> None:
    for index in range(30):
        brightest = sorted(float(tone.max()) for tone in _scene(index).bodies[0].tones)
        assert brightest[0] <= RANGES.dark_tone[1] + 1e-6
        assert brightest[1] >= RANGES.light_tone[0] - 1e-6


def test_patterns_close_around_round_shapes() -> None:
    for index in range(40):
        main = _scene(index).bodies[0]
        if main.shape.girth is not None:
            cells = main.shape.girth / main.pattern.cell
            assert cells / 2 == pytest.approx(round(cells / 2))
            assert RANGES.cell[0] * 0.8 < main.pattern.cell < RANGES.cell[1] * 1.25
