"""A transposed convolution and the convolution behind it, computed as one.

Nothing lies between the two, so that their composition is a transposed convolution of 6 x 6 taps with stride
2, in other words a 3 x 3 convolution that makes 2 x 2 positions of each: 36 products of channels per position
in place of 52, a convolution at the lower resolution, whose kernels libraries run faster, and no map between.
The composition also has what the upsampled map would hold just outside the picture, where the second
convolution reads zeros: that is four lines, which are computed and taken off.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d, conv_transpose2d

from maskpre.ops.tiles.conv import by_hand

# Positions per channel from which what is saved outweighs composing the weights. Products alone would say 20:
# 16 * channels**2 are saved per position, and 36 * 9 * channels**3 spent; at 33 both ways took as long.
COMPOSE_FROM = 40


class _Unpack(torch.autograd.Function):
    """Spread 2 x 2 positions that lie in a position's channels, and subtract lines from the borders."""

    @staticmethod
    def forward(ctx: Any, packed: Tensor, *lines: Tensor) -> Tensor:
        b, c, h, w = packed.shape
        blocks = packed.permute(0, 2, 3, 1).reshape(b, h, w, 2, 2, c // 4)
        out = blocks.transpose(2, 3).reshape(b, 2 * h, 2 * w, c // 4).permute(0, 3, 1, 2)
        for border, line in zip(_borders(out), lines, strict=True):
            border.sub_(line)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        b, c, h, w = grad.shape
        blocks = grad.permute(0, 2, 3, 1).reshape(b, h // 2, 2, w // 2, 2, c).transpose(2, 3)
        packed = blocks.reshape(b, h // 2, w // 2, 4 * c).permute(0, 3, 1, 2)
        return packed, *(-border for border in _borders(grad))


def _borders(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The first and last rows, the first and last columns."""
    return x[:, :, :1], x[:, :, -1:], x[..., :1], x[..., -1:]


def _composed(x: Tensor, up: nn.ConvTranspose2d, conv: nn.Conv2d) -> Tensor:
    first, second, shift = up.weight, conv.weight, up.bias
    num_in, num_out = first.shape[0], second.shape[0]
    taps = conv2d(first, second, padding=2).view(num_in, num_out, 3, 2, 3, 2).flip(2, 4)
    weight = taps.permute(3, 5, 1, 0, 2, 4).reshape(4 * num_out, num_in, 3, 3)
    bias = None if shift is None else (second.sum(dim=(2, 3)) @ shift).repeat(4)
    # Corners belong to the rows above and below.
    above = conv_transpose2d(x[:, :, :1], first[:, :, :1], shift, (1, 2))
    below = conv_transpose2d(x[:, :, -1:], first[:, :, -1:], shift, (1, 2))
    left = conv_transpose2d(x[..., :1], first[..., :1], shift, (2, 1), (1, 0))
    right = conv_transpose2d(x[..., -1:], first[..., -1:], shift, (2, 1), (1, 0))
    unpacked: Tensor = _Unpack.apply(
        conv2d(x, weight, bias, padding=1),
        conv2d(above, second[:, :, :1]),
        conv2d(below, second[:, :, -1:]),
        conv2d(left, second[..., :1], padding=(1, 0)),
        conv2d(right, second[..., -1:], padding=(1, 0)),
    )
    return unpacked


def upsample(
    x: Float[Tensor, "b c h w"], up: nn.ConvTranspose2d, conv: nn.Conv2d
) -> Float[Tensor, "b d 2*h 2*w"]:
    """Apply conv(up(x)), by the faster way.

    `up` has a 4 x 4 kernel, stride 2 and padding 1; `conv` a 3 x 3 kernel, padding 1 and no bias.
    """
    positions = x.shape[0] * x.shape[2] * x.shape[3]
    if by_hand(x) and positions >= COMPOSE_FROM * x.shape[1]:
        return _composed(x, up, conv)
    return conv(up(x))
