"""The shapes of attention that `benchmark_attention.py` times, with random inputs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from maskpre.ops.positions import relative_codes, relative_offset


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A workload. With `keys`, queries attend to other tokens; `grid` gives tokens positions and a table."""

    heads: int
    tokens: int
    dim: int
    batch: int
    keys: int | None = None
    grid: tuple[int, int] | None = None
    class_token: bool = False
    visible: bool = False
    regions: bool = False
    shortest: int | None = None


SHAPES = {
    "A MAE-B encoder": Shape(heads=12, tokens=50, dim=64, batch=512),
    "A MAE-L encoder": Shape(heads=16, tokens=50, dim=64, batch=512),
    "B MAE-H encoder": Shape(heads=16, tokens=65, dim=80, batch=256),
    "B ViT-g video encoder": Shape(heads=16, tokens=208, dim=88, batch=32),
    "C MAE decoder": Shape(heads=16, tokens=197, dim=32, batch=512),
    "D SimMIM ViT-B": Shape(heads=12, tokens=197, dim=64, batch=128, grid=(14, 14), class_token=True),
    "E Swin 6": Shape(heads=4, tokens=36, dim=32, batch=8192, grid=(6, 6), regions=True),
    "E Swin 7": Shape(heads=4, tokens=49, dim=32, batch=8192, grid=(7, 7), regions=True),
    "F ragged": Shape(heads=12, tokens=196, dim=64, batch=256, shortest=12),
    "G visible, table": Shape(
        heads=12, tokens=50, dim=64, batch=256, grid=(14, 14), class_token=True, visible=True
    ),
    "H video encoder": Shape(heads=12, tokens=160, dim=64, batch=64),
    "H CAE regressor": Shape(heads=12, tokens=98, keys=196, dim=64, batch=128),
    "H MultiMAE decoder": Shape(heads=8, tokens=196, keys=98, dim=32, batch=256),
    "I dual-mask video decoder": Shape(heads=6, tokens=944, dim=64, batch=64),
    "I video decoder": Shape(heads=6, tokens=1568, dim=64, batch=64),
}


@dataclass(kw_only=True)
class Problem:
    """Random inputs of a shape: projections (t, 3, h, d), or queries and packed keys and values."""

    shape: Shape
    projections: list[Tensor]
    gradient: Tensor
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def trained(self) -> list[Tensor]:
        """What gets a gradient."""
        table = self.options.get("bias_table")
        return [*self.projections, *([] if table is None else [table])]


def make_problem(shape: Shape, *, device: str, dtype: torch.dtype, seed: int) -> Problem:
    """Inputs that depend on the seed only."""
    generator = torch.Generator(device).manual_seed(seed)

    def randn(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, device=device)

    lengths = [shape.tokens] * shape.batch
    options: dict[str, Any] = {}
    if shape.shortest is not None:
        spread = torch.linspace(shape.shortest, shape.tokens, shape.batch).round().int()
        lengths = spread.tolist()
        options["cu"] = torch.tensor([0, *lengths], device=device).cumsum(0, dtype=torch.int32)
    options["max_n"] = shape.tokens
    total = sum(lengths)
    sizes = [(total, 3)] if shape.keys is None else [(total, 1), (shape.batch * shape.keys, 2)]
    projections = [
        randn(num, parts, shape.heads, shape.dim).to(dtype).requires_grad_() for num, parts in sizes
    ]
    if shape.grid is not None:
        options |= _positions(shape, randn, device)
    if shape.regions:
        # A quarter of the windows lies at the border and is cut in two.
        cut = torch.arange(shape.batch, device=device)[:, None] % 4 == 0
        halves = torch.arange(shape.tokens, device=device) < shape.tokens // 2
        options["group"] = (cut & halves).int().flatten()
    return Problem(
        shape=shape,
        projections=projections,
        gradient=randn(total, shape.heads, shape.dim).to(dtype),
        options=options,
    )


def _positions(shape: Shape, randn: Callable[..., Tensor], device: str) -> dict[str, Any]:
    assert shape.grid is not None
    rows = (2 * shape.grid[0] - 1) * (2 * shape.grid[1] - 1) + 3 * shape.class_token
    codes = relative_codes(shape.grid).to(device)
    if shape.visible:
        chosen = randn(shape.batch, len(codes)).argsort(dim=1)[:, : shape.tokens - shape.class_token]
        codes = codes[chosen]
    if shape.class_token:
        codes = torch.nn.functional.pad(codes, (1, 0), value=-1)
    return {
        "bias_table": (0.5 * randn(shape.heads, rows)).requires_grad_(),
        "code": codes.flatten(),
        "code_offset": relative_offset(shape.grid),
    }


def floor(problem: Problem, bandwidth: float, rate: float) -> float:
    """Seconds that both passes take at least."""
    shape, size = problem.shape, problem.gradient.element_size()
    inputs, out = sum(x.numel() for x in problem.projections) * size, problem.gradient.numel() * size
    pairs = problem.gradient.shape[0] * (shape.keys or shape.tokens) * shape.heads
    if shape.shortest is not None:
        lengths = problem.options["cu"].diff().double()
        pairs = float(lengths.square().sum()) * shape.heads
    operations = 4 * pairs * shape.dim
    forward = max((inputs + out) / bandwidth, operations / rate)
    return forward + max((2 * inputs + 2 * out) / bandwidth, 2.5 * operations / rate)
