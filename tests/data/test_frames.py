import numpy as np
import pytest

from maskpre.data.frames import DenseFrames, SegmentFrames
from maskpre.data.randomness import Draws
from maskpre.errors import UserError


def draws(index=0):
    return Draws(seed=1, epoch=2, index=index)


def test_dense_starts_are_uniform_over_all_places_that_fit():
    sampling = DenseFrames(num_frames=4, stride=2)
    clips = np.stack([sampling.random(11, draws(index)) for index in range(400)])
    assert (np.diff(clips, axis=1) == 2).all()
    starts, counts = np.unique(clips[:, 0], return_counts=True)
    assert starts.tolist() == [0, 1, 2, 3]
    assert counts.min() > 70


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (8, [0, 2, 4, 6]),
        (7, [0, 2, 4, 4]),
        (6, [0, 2, 4, 4]),
        (4, [0, 2, 2, 2]),
        (3, [0, 0, 0, 0]),
        (2, [0, 0, 0, 0]),
        (1, [0, 0, 0, 0]),
    ],
)
def test_dense_frames_repeat_in_videos_that_are_too_short(length, expected):
    assert DenseFrames(num_frames=4, stride=2).random(length, draws()).tolist() == expected


def test_dense_views_are_spread_from_the_start_to_the_end():
    sampling = DenseFrames(num_frames=4, stride=2)
    assert sampling.spread(20, 1).tolist() == [[6, 8, 10, 12]]
    spread = sampling.spread(20, 4)
    assert spread[:, 0].tolist() == [0, 4, 8, 12]
    assert spread[-1].tolist() == [12, 14, 16, 18]
    assert sampling.spread(5, 2).tolist() == [[0, 2, 4, 4]] * 2


def test_segments_give_one_frame_each():
    sampling = SegmentFrames(num_frames=4)
    clips = np.stack([sampling.random(22, draws(index)) for index in range(300)])
    assert [sorted(set(column)) for column in clips.T.tolist()] == [
        [0, 1, 2, 3, 4],
        [5, 6, 7, 8, 9],
        [10, 11, 12, 13, 14],
        [15, 16, 17, 18, 19],
    ]
    assert sampling.random(3, draws()).tolist() == [0, 0, 0, 0]


def test_segment_views():
    sampling = SegmentFrames(num_frames=4)
    assert sampling.spread(20, 1).tolist() == [[2, 7, 12, 17]]
    assert sampling.spread(20, 2).tolist() == [[0, 5, 10, 15], [2, 7, 12, 17]]
    assert sampling.spread(2, 2).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1]]


def test_impossible_clips_are_refused():
    with pytest.raises(UserError, match=r"num_frames \(16\) and frame_stride \(0\) must be at least 1"):
        DenseFrames(num_frames=16, stride=0)
    with pytest.raises(UserError, match=r"num_frames \(0\) must be at least 1"):
        SegmentFrames(num_frames=0)
