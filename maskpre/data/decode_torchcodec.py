"""Video files to uint8 tensors, through torchcodec."""

import json
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from maskpre.data.decode_video import Frames, VideoFile
from maskpre.data.sources import BadSampleError
from maskpre.data.timeline import format_name

if TYPE_CHECKING:
    from torchcodec.decoders import VideoDecoder

_EXACT = ("mov", "matroska")


class TorchcodecFile(VideoFile):
    """An open video, decoded by torchcodec on the timeline that PyAV has read.

    Only mp4 and Matroska files are: in others, such as MPEG-TS and AVI, torchcodec seeks to wrong frames
    without a word, so PyAV decodes them.
    """

    def _decode(self, wanted: Int64[np.ndarray, "t"]) -> Frames:
        if self.timeline.counted or format_name(self._container) not in _EXACT:
            return super()._decode(wanted)
        from torchcodec.decoders import VideoDecoder

        try:
            decoder = VideoDecoder(
                torch.from_numpy(self._data),
                stream_index=self._stream.index,
                custom_frame_mappings=self._mapping(),
            )
            frames = self._get(decoder, wanted.tolist())
        except RuntimeError as error:
            raise BadSampleError(f"can't be decoded: {str(error).strip().splitlines()[0]}") from error
        pixels = frames if self._channels == frames.shape[1] else _grey(frames)
        return Frames(pixels, round(decoder.metadata.rotation or 0))

    def _get(self, decoder: "VideoDecoder", wanted: list[int]) -> UInt8[Tensor, "t 3 h w"]:
        """The frames with these rising numbers; without seeking, by way of all before the last."""
        if self._access == "seek":
            return decoder.get_frames_at(indices=wanted).data
        frames = (decoder.get_frame_at(number).data for number in range(wanted[-1] + 1))
        return torch.stack([frame for number, frame in enumerate(frames) if number in wanted])

    def _mapping(self) -> str:
        ticks, keys, _ = self.timeline
        gaps = np.diff(ticks, append=2 * ticks[-1] - ticks[-2] if len(ticks) > 1 else ticks[-1] + 1)
        entries = [
            {"pts": tick, "duration": gap, "key_frame": int(key)}
            for tick, gap, key in zip(ticks.tolist(), gaps.tolist(), keys.tolist(), strict=True)
        ]
        return json.dumps({"frames": entries})


def _grey(frames: UInt8[Tensor, "t 3 h w"]) -> UInt8[Tensor, "t 1 h w"]:
    """Luma (BT.601)."""
    weights = torch.tensor([0.299, 0.587, 0.114])
    return torch.einsum("tchw,c->thw", frames.float(), weights).round().to(torch.uint8)[:, None]
