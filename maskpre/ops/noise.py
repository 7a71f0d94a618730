"""Counter-based random numbers: a pure function of seed, epoch, sample index and stream name."""

import hashlib
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_WORD = 0xFFFFFFFF


def stream_key(seed: int, stream: str) -> tuple[int, int]:
    """Two 32-bit key words for a named stream of a seed."""
    digest = hashlib.blake2b(f"{seed}/{stream}".encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def _multiply(word: Int[Tensor, "..."], factor: int) -> tuple[Tensor, Tensor]:
    # The 64-bit product wraps in int64, but its bits are right: shift, then cut the sign extension off.
    product = word * factor
    return (product >> 32) & _WORD, product & _WORD


def philox(counter: Int[Tensor, "*n 4"], key: tuple[int, int]) -> Int[Tensor, "*n 4"]:
    """Philox4x32-10 (Salmon et al., SC 2011): four 32-bit words per counter, held in int64.

    Only integer operations, hence the same on every device.
    """
    c0, c1, c2, c3 = counter.unbind(-1)
    k0, k1 = key
    for _ in range(10):
        high0, low0 = _multiply(c0, _MULTIPLIERS[0])
        high1, low1 = _multiply(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return torch.stack((c0, c1, c2, c3), dim=-1)


@dataclass(frozen=True)
class KeyedNoise:
    """Noise for a batch, keyed by each sample's epoch and global index."""

    seed: int
    epoch: Int[Tensor, "b"]
    index: Int[Tensor, "b"]

    def uniform(self, stream: str, num: int) -> Float[Tensor, "b n"]:
        """`num` float32 numbers in [0, 1) per sample, multiples of 2**-24."""
        blocks = -(-num // 4)
        block = torch.arange(blocks, device=self.index.device)
        index, epoch = self.index[:, None], self.epoch[:, None]
        parts = (block[None], epoch & _WORD, index & _WORD, (index >> 32) & _WORD)
        words = philox(torch.stack(torch.broadcast_tensors(*parts), dim=-1), stream_key(self.seed, stream))
        return (words.flatten(1)[:, :num] >> 8).float() * 2.0**-24


@dataclass(frozen=True)
class GivenNoise:
    """Noise handed in by name, to replay draws made elsewhere."""

    streams: dict[str, Tensor]

    def uniform(self, stream: str, num: int) -> Float[Tensor, "b n"]:
        """The given numbers; ValueError if the stream is missing or has another length."""
        if stream not in self.streams:
            raise ValueError(f"no noise was given for stream {stream!r}; given: {sorted(self.streams)}")
        values = self.streams[stream]
        if values.shape[1] != num:
            raise ValueError(f"noise {stream!r} has {values.shape[1]} numbers per sample, {num} are needed")
        return values


@dataclass(frozen=True)
class TorchNoise:
    """Noise from torch's generator for `batch` samples, on which the evaluation's training runs."""

    batch: int
    device: torch.device

    def uniform(self, stream: str, num: int) -> Float[Tensor, "b n"]:
        """Numbers in [0, 1), new ones at every call."""
        return torch.rand(self.batch, num, device=self.device)
