from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from maskpre.data.scenes import render
from maskpre.data.scenes.motion import MOTIONS, ClipRanges, motion_of, sample_clip
from maskpre.data.scenes.vectors import vector

FRAMES = 16
OPPOSITE = [1, 0, 3, 2, 5, 4, 7, 6, 9, 8]


def _clip(index, seed=0):
    return sample_clip(seed=seed, index=index, ranges=ClipRanges())


def test_ten_motions_in_balanced_blocks():
    assert len({motion.name for motion in MOTIONS}) == 10
    for block in range(20):
        assert sorted(motion_of(seed=1, index=10 * block + place) for place in range(10)) == list(range(10))


def test_a_clip_starts_with_the_same_frame_whatever_its_motion():
    """What a clip looks like is drawn without its label: only the motion can tell it."""
    for index in range(3):
        pictures = [render(_clip(index).scene(motion, 0), size=16)["image"] for motion in MOTIONS]
        assert all(np.array_equal(picture, pictures[0]) for picture in pictures)


def test_a_motion_moves_one_coordinate_at_a_steady_pace():
    for motion in MOTIONS:
        clip = _clip(5)
        states = np.stack([clip.state(motion, frame) for frame in range(FRAMES)])
        steps = (np.diff(states, axis=0) + 0.5) % 1 - 0.5
        moving = np.abs(steps).max(axis=0) > 1e-9
        assert moving.sum() == 1
        np.testing.assert_allclose(steps, np.broadcast_to(steps[0], steps.shape), atol=1e-12)
        low, high = sorted(motion.pace)
        assert low <= steps[0][moving] <= high


@pytest.mark.parametrize("frame", [0, 7, 15])
def test_every_frame_has_the_same_distribution_in_all_classes(frame):
    """Uniform and independent coordinates, of every frame of every class: no single frame tells the label."""
    clips = [_clip(index) for index in range(600)]
    for motion in MOTIONS:
        states = np.stack([clip.state(motion, frame) for clip in clips])
        for coordinate in states.T:
            assert stats.kstest(coordinate, "uniform").pvalue > 1e-3
        related = np.corrcoef(states.T) - np.eye(4)
        assert np.abs(related).max() < 0.14


def test_a_classifier_of_frames_stays_at_chance():
    """Ridge regression and nearest neighbours on the pixels of frame 9; chance is 0.1."""
    labels = np.array([motion_of(seed=0, index=index) for index in range(700)])
    frames = np.stack(
        [
            render(_clip(index).scene(MOTIONS[label], 9), size=8, supersampling=1)["image"].reshape(-1)
            for index, label in enumerate(labels)
        ]
    )
    pixels = (frames - frames.mean(axis=0)) / 64
    train, test = pixels[:400], pixels[400:]
    distances = (train**2).sum(axis=1) - 2 * test @ train.T
    nearest = labels[:400][distances.argmin(axis=1)]
    weights = np.linalg.solve(
        train.T @ train + 30 * np.eye(train.shape[1]), train.T @ np.eye(10)[labels[:400]]
    )
    linear = (test @ weights).argmax(axis=1)
    for predicted in (nearest, linear):
        assert (predicted == labels[400:]).mean() < 0.16


@pytest.mark.parametrize("number", range(10))
def test_backwards_a_clip_is_one_of_the_opposite_class(number):
    """The same surfaces in view: only the ground's pattern, which has no place of its own, is elsewhere."""
    clip, motion, opposite = _clip(3), MOTIONS[number], MOTIONS[OPPOSITE[number]]
    backwards = replace(clip, start=clip.state(motion, FRAMES - 1))
    for frame in (0, 6, FRAMES - 1):
        depths = [
            render(scene, size=16, outputs=("depth",))["depth"]
            for scene in (clip.scene(motion, frame), backwards.scene(opposite, FRAMES - 1 - frame))
        ]
        finite = np.isfinite(depths[0]) & np.isfinite(depths[1])
        assert (np.isfinite(depths[0]) == np.isfinite(depths[1])).mean() > 0.98
        assert np.median(np.abs(depths[0] - depths[1])[finite]) < 1e-3


def test_names_say_what_is_seen():
    by_name = {motion.name: motion for motion in MOTIONS}

    def seen(name, frame):
        """Where the body is in front of the camera: to the right, and away."""
        scene = replace(_clip(1), start=np.full(4, 0.5)).scene(by_name[name], frame)
        offset = scene.bodies[0].position - scene.camera.position
        return scene.camera.axes.T @ offset

    assert seen("slides right slowly", 4)[0] > seen("slides right slowly", 0)[0] + 0.1
    assert seen("slides left fast", 4)[0] < seen("slides left fast", 0)[0] - 0.1
    assert seen("moves away", 4)[2] > seen("moves away", 0)[2] + 0.1
    assert seen("comes closer", 4)[2] < seen("comes closer", 0)[2] - 0.1


def test_the_body_stands_on_the_ground_and_in_view():
    for index in range(40):
        motion = MOTIONS[index % 10]
        for frame in (0, 15):
            scene = _clip(index).scene(motion, frame)
            body = scene.bodies[0]
            down = body.rotation.T @ vector(0.0, -1.0, 0.0)
            assert body.shape.support(down) == pytest.approx(body.position[1], abs=1e-4)
            owner = render(scene, size=24, outputs=("segmentation",))["segmentation"]
            assert (owner == 2).mean() > 0.01
