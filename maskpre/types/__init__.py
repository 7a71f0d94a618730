"""What travels through one step: grids, mask plans, located tokens, and the step itself.

Legend of dimension letters used in shape annotations across the package:
    b  samples of the batch            l  all cells of a grid          v  visible cells of a plan
    m  hidden cells of a plan          n  tokens of some sequence      p  prefix tokens (class, registers)
    d  token width                     k  values per token             c  image channels
    h, w  picture rows, columns        r  sub-cells per cell
Ids count the cells of a grid in raster order and never count prefix tokens. A mask is True where a cell
is hidden from the encoder.
"""

from maskpre.types.encoded import OUTPUT, Encoded, Taps
from maskpre.types.grid import Grid, refine, split_cells
from maskpre.types.located import Located, align, gather_tokens
from maskpre.types.mask_plan import REGIONS, WITH_CLASS, MaskPlan, split_region
from maskpre.types.step import Noise, Step

__all__ = [
    "OUTPUT",
    "REGIONS",
    "WITH_CLASS",
    "Encoded",
    "Grid",
    "Located",
    "MaskPlan",
    "Noise",
    "Step",
    "Taps",
    "align",
    "gather_tokens",
    "refine",
    "split_cells",
    "split_region",
]
