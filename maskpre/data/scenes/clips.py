"""Renders clips of moving scenes into mp4 files; kept free of torch, as worker processes import it."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from av.video.frame import VideoFrame
from jaxtyping import UInt8

from maskpre.data.encode_video import Quality, encode_mp4
from maskpre.data.scenes.motion import MOTIONS, ClipRanges, motion_of, sample_clip
from maskpre.data.scenes.render import render
from maskpre.data.scenes.shards import Collection, Rendered

FRAME_RATE = Fraction(8)
"""Frames per second that the files name; motions are drawn per frame."""


@dataclass(frozen=True, kw_only=True)
class SceneClips(Collection):
    """Clips of `num_frames` frames, as H.264 in mp4.

    Every frame is coded by itself with the same quantiser, or its quality would tell how its neighbours move.
    """

    num_frames: int
    quantiser: int
    ranges: ClipRanges

    @property
    def classes(self) -> tuple[str, ...]:
        """One per motion."""
        return tuple(motion.name for motion in MOTIONS)

    @property
    def pictures_per_sample(self) -> int:
        """One per frame."""
        return self.num_frames

    def make(self, index: int) -> Rendered:
        """The clip shown with the motion of its label."""
        label = motion_of(seed=self.seed, index=index)
        frames = self.frames(index, label)
        video = (VideoFrame.from_ndarray(pixels) for pixels in frames)
        content = encode_mp4(video, rate=FRAME_RATE, quality=Quality("qp", self.quantiser), gop=1)
        return Rendered(label, "mp4", content, frames)

    def frames(self, index: int, motion: int) -> UInt8[np.ndarray, "t size size 3"]:
        """Clip `index` shown with any motion."""
        clip = sample_clip(seed=self.seed, index=index, ranges=self.ranges)
        scenes = [clip.scene(MOTIONS[motion], frame) for frame in range(self.num_frames)]
        # One ray per pixel: with four, rendering would take the minutes that training should.
        return np.stack([render(s, size=self.image_size, supersampling=1)["image"] for s in scenes])
