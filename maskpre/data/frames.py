"""Which frames of a video make a clip."""

from abc import ABC, abstractmethod

import numpy as np
from jaxtyping import Int64

from maskpre.data.randomness import Draws
from maskpre.errors import UserError

Positions = Int64[np.ndarray, "clips t"]


class FrameSampling(ABC):
    """Chooses frame numbers in a video of `length` frames for clips of `num_frames`."""

    num_frames: int

    @abstractmethod
    def random(self, length: int, draws: Draws) -> Int64[np.ndarray, "t"]:
        """A clip for training."""

    @abstractmethod
    def spread(self, length: int, clips: int) -> Positions:
        """`clips` clips spread evenly over the video, for evaluation; one is in the middle."""


class DenseFrames(FrameSampling):
    """Every `stride`-th frame from a start on, as VideoMAE samples Kinetics (arXiv 2203.12602).

    The start is uniform where the clip fits. In a video that is too short it is 0, and the number stops
    advancing where the next one would be the last or lie beyond it: that frame is shown until the clip is
    full.
    """

    def __init__(self, *, num_frames: int, stride: int) -> None:
        if min(num_frames, stride) < 1:
            raise UserError(f"num_frames ({num_frames}) and frame_stride ({stride}) must be at least 1")
        self.num_frames = num_frames
        self.stride = stride

    def random(self, length: int, draws: Draws) -> Int64[np.ndarray, "t"]:
        """A clip from a random start on."""
        room = length - self.num_frames * self.stride
        start = int(draws.uniform("clip", 1)[0] * (room + 1)) if room >= 0 else 0
        positions = start + self.stride * np.arange(self.num_frames, dtype=np.int64)
        # The official code counts frames from 1 here, and compares with the length.
        last = max(length - 2 - start, 0) // self.stride * self.stride
        return np.minimum(positions, start + last)

    def spread(self, length: int, clips: int) -> Positions:
        """Starts spread evenly over every `stride`-th frame, rounded down; the last one fills up the clip."""
        frames = np.arange(0, length, self.stride, dtype=np.int64)
        room = max(0, len(frames) - self.num_frames)
        shares = np.linspace(0, 1, clips) if clips > 1 else np.array([0.5])
        starts = (shares * room).astype(np.int64)
        places = starts[:, None] + np.arange(self.num_frames)
        return frames[np.minimum(places, len(frames) - 1)]


class SegmentFrames(FrameSampling):
    """One frame from each of `num_frames` equal parts of the video (TSN, arXiv 1608.00859), as for SSv2.

    In training it is random within its part; videos with fewer frames than parts show the first alone, as
    the official fine-tuning does.
    """

    def __init__(self, *, num_frames: int) -> None:
        if num_frames < 1:
            raise UserError(f"num_frames ({num_frames}) must be at least 1")
        self.num_frames = num_frames

    def random(self, length: int, draws: Draws) -> Int64[np.ndarray, "t"]:
        """A random frame of each part."""
        part = length // self.num_frames
        if part == 0:
            return np.zeros(self.num_frames, dtype=np.int64)
        offsets = (draws.uniform("clip", self.num_frames) * part).astype(np.int64)
        return part * np.arange(self.num_frames, dtype=np.int64) + offsets

    def spread(self, length: int, clips: int) -> Positions:
        """The same place of every part: its middle for one clip; for n, the start and every n-th beyond."""
        part = length / self.num_frames
        offsets = np.arange(clips) / clips if clips > 1 else np.array([0.5])
        places = part * (np.arange(self.num_frames) + offsets[:, None])
        return np.minimum(places.astype(np.int64), length - 1)
