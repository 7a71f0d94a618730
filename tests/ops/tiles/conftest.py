"""Plans and maps for the tests of what computes visible positions only."""

from dataclasses import dataclass

import pytest
import torch

from maskpre.ops.tiles.units import VisibleUnits


@dataclass
class Layout:
    """Visible units of three samples, and how many positions (rows, columns) each measures."""

    units: VisibleUnits
    tile: tuple[int, int]

    @classmethod
    def make(cls, shape, num_visible, tile):
        """Units that differ from sample to sample, in no order."""
        torch.manual_seed(0)
        keep = torch.stack([torch.randperm(shape[0] * shape[1])[:num_visible] for _ in range(3)])
        return cls(VisibleUnits(keep=keep, shape=shape), tile)

    def visible(self, stride=(1, 1)):
        """1 where a whole map is visible, else 0 (b, 1, h, w)."""
        keep, (rows, columns) = self.units.keep, self.units.shape
        mask = torch.zeros(len(keep), rows * columns, dtype=torch.float64).scatter(1, keep, 1)
        mask = mask.unflatten(1, (1, rows, columns))
        down, across = (size // step for size, step in zip(self.tile, stride, strict=True))
        return mask.repeat_interleave(down, 2).repeat_interleave(across, 3)

    def whole_map(self):
        """A map that is zero where it is hidden, and not contiguous."""
        mask = self.visible()
        x = torch.randn(len(mask), *mask.shape[2:], 7, dtype=torch.float64)[..., 1:]
        return x.movedim(3, 1) * mask


LAYOUTS = {
    "oblong tiles": ((3, 4), 5, (8, 4)),
    "one visible": ((2, 2), 1, (4, 4)),
    "all visible": ((3, 3), 9, (2, 2)),
    "single positions": ((4, 3), 5, (1, 1)),
    "flat tiles": ((3, 2), 2, (4, 8)),
    "a row of units": ((1, 5), 3, (8, 8)),
}


@pytest.fixture(params=LAYOUTS)
def layout(request):
    return Layout.make(*LAYOUTS[request.param])


@pytest.fixture
def gradients():
    """Gradients under an arbitrary incoming gradient."""

    def find(out, inputs):
        weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape).sin()
        return torch.autograd.grad((out * weight).sum(), inputs)

    return find
