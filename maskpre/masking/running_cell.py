"""Which cells the decoder produces: a pattern of 2 x 2 cells that turns from frame to frame."""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from maskpre.masking.base import Masking
from maskpre.types import Grid, MaskPlan, Step

CELLS = 4


def running_maps(grid: Grid, num_hidden: int) -> Bool[Tensor, "4 l"]:
    """The maps that start at each of the four positions; True is hidden.

    Of every 2 x 2 cells, `num_hidden` are hidden: the queue of hidden cells, then visible ones, is turned on
    by one before each frame, the first included, and laid out in raster order.
    """
    frames, rows, columns = grid.shape
    queue = torch.arange(CELLS) < num_hidden
    start, frame = torch.arange(CELLS)[:, None], torch.arange(frames)
    places = (torch.arange(rows)[:, None] % 2) * 2 + torch.arange(columns) % 2
    turned = (places + (start + frame + 1)[:, :, None, None]) % CELLS
    return queue[turned].flatten(1)


class RunningCellMasking(Masking):
    """Hides cells from the encoder as `encoder` does, and a share `decoder_ratio` of all from the decoder.

    Dual masking (VideoMAE V2, Wang et al., CVPR 2023, section 3.2): the decoder produces the cells that are
    left to it, also those that the encoder saw; losses count the hidden ones among them (the region
    "decode&masked"). Each sample draws one of four maps (see `running_maps`) from `stream`. int(4 *
    decoder_ratio) of four cells are hidden; 0 hides none, and the decoder produces what the encoder lacks.

    Raises ValueError if the decoder would produce nothing, or if 2 x 2 cells don't divide the grid.
    """

    cells: Tensor

    def __init__(
        self,
        *,
        grid: Grid,
        encoder: Callable[..., Masking],
        decoder_ratio: float = 0.5,
        stream: str = "decode",
    ) -> None:
        super().__init__(grid=grid)
        self.encoder = encoder(grid=grid)
        self.ragged, self.reads, self.taps = self.encoder.ragged, self.encoder.reads, self.encoder.taps
        self.decoder_ratio, self.stream = decoder_ratio, stream
        self.register_buffer("cells", self._choices(), persistent=False)

    def _choices(self) -> Int[Tensor, "k n"]:
        """The ids that the decoder produces, per map; no map without a decoder's mask."""
        num_hidden = int(CELLS * self.decoder_ratio)
        if self.decoder_ratio == 0:
            return torch.empty(0, 0, dtype=torch.int64)
        if not 0 < num_hidden < CELLS:
            raise ValueError(
                f"decoder_ratio {self.decoder_ratio} hides {num_hidden} of {CELLS} cells from the decoder; "
                "it must be 0, or at least 0.25 and less than 1"
            )
        if len(self.grid.shape) != 3 or any(size % 2 for size in self.grid.shape[1:]):
            raise ValueError(
                "running cells need frames and even rows and columns, the encoder's cells have "
                f"{self.grid.shape[-2:]} in {len(self.grid.shape)} dimensions; use decoder_ratio=0"
            )
        if self.ragged:
            raise ValueError(
                f"{type(self.encoder).__name__} leaves differing numbers of cells visible, which "
                "running cells don't take; use masking=tube"
            )
        num_shown = self.grid.num_cells * (CELLS - num_hidden) // CELLS
        order = running_maps(self.grid, num_hidden).to(torch.uint8).argsort(dim=1, stable=True)
        return order[:, :num_shown]

    def fit(self, grid: Grid) -> Grid:
        """See `Masking.fit`."""
        return self.encoder.fit(grid)

    def forward(self, step: Step) -> MaskPlan:
        """The encoder's plan, with the cells for the decoder."""
        plan = self.encoder(step)
        if not len(self.cells):
            return plan
        start = (step.noise.uniform(self.stream, 1)[:, 0] * CELLS).long()
        return replace(plan, decode=self.cells[start])
