"""Convolutional networks from timm, run sparsely on what a plan leaves visible."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import timm
from jaxtyping import Float
from timm.models import FeatureInfo
from torch import Tensor, nn

from maskpre.encoders.base import Encoder, EncoderSpec, MapSpec
from maskpre.encoders.blocks import check_drop_path
from maskpre.encoders.create import check_name
from maskpre.encoders.sparse.border import BORDERS, Border, LayerMasking
from maskpre.encoders.sparse.execution import Execution
from maskpre.encoders.sparse.masked import MaskMultiplication
from maskpre.encoders.sparse.program import trace
from maskpre.encoders.sparse.run import Runner, drop_path_scales
from maskpre.encoders.sparse.sizes import check_sizes
from maskpre.encoders.sparse.tiles import VisibleTiles
from maskpre.nearest import multiples, nearest_number
from maskpre.ops.batch_norm import Statistics, check_statistics
from maskpre.ops.patchify import check_size
from maskpre.types import Encoded, Grid, MaskPlan, Noise, gather_tokens

ExecutionName = Literal["tiles", "mask"]
BorderRule = Literal["cells"] | Border


class ConvNet(Encoder):
    """Any timm convnet by name whose layers are known, as SparK runs it (Tian et al. 2023, section 3.1).

    `options` are arguments of the named model's own constructor (sizes of a smaller network, say). Plans live
    on the coarsest grid; hidden cells are empty in every feature map, and batch norms see visible positions
    only. Tokens are the visible positions of the coarsest map, `maps` the last `num_maps` stages' results.
    `statistics` "world" shares batch statistics among all ranks in training. `execution` is how stages are
    computed, one name for all or one per stage with the stem first: "tiles" keeps and computes visible
    positions only, "mask" computes every position and empties the hidden ones. Both give the same values.
    `drop_path_rate` is the last block's, rising linearly. Initialisation is timm's, as SparK's is.

    `border` "cells" is all of the above. Other rules are layer masking (Balasubramanian & Feizi 2023): what
    is seen widens with every window that reaches into it, so that maps hold more than the visible cells,
    batch norms are ordinary ones, and `execution` says nothing; see `LayerMasking`.

    Raises ValueError if timm refuses the name or options, a layer is not known, the total stride does not
    divide the picture, or the cells do not divide a feature map.
    """

    def __init__(
        self,
        *,
        name: str,
        img_size: int,
        in_chans: int = 3,
        options: Mapping[str, Any] | None = None,
        drop_path_rate: float = 0.0,
        num_maps: int = 4,
        statistics: Statistics = "world",
        execution: ExecutionName | Sequence[ExecutionName] = "tiles",
        border: BorderRule = "cells",
    ) -> None:
        super().__init__()
        check_statistics(statistics)
        if border not in ("cells", *BORDERS):
            known = ", ".join(map(repr, ("cells", *BORDERS)))
            raise ValueError(f"border must be one of {known}, got {border!r}")
        net, info = create_convnet(name, {**(options or {}), **_rate(drop_path_rate)}, in_chans=in_chans)
        stages = info[-num_maps:]
        if num_maps < 1 or len(stages) < num_maps:
            raise ValueError(f"num_maps ({num_maps}) must be in 1..{len(info)}, the stages of {name!r}")
        self.program = trace(net, stages=[stage["module"] for stage in stages])
        in_cells = MaskMultiplication.knows & VisibleTiles.knows
        self.program.check(in_cells if border == "cells" else LayerMasking.knows)
        self._take_over(net)
        self.statistics, self.border = statistics, border
        self._recompute = False
        self._executions = _execution_names(execution, self.program.num_stages)
        stride = int(stages[-1]["reduction"])
        if img_size % stride:
            nearest = nearest_number(img_size, multiples(stride, near=img_size))
            raise ValueError(
                f"img_size ({img_size}) must be a multiple of the network's stride ({stride}){nearest}"
            )
        grid = Grid.over((img_size, img_size), (stride, stride))
        if border == "cells":
            check_sizes(self.program, self, grid, in_tiles=[name == "tiles" for name in self._executions])
        self.spec = EncoderSpec(
            embed_dim=int(stages[-1]["num_chs"]),
            grid=grid,
            out_grid=grid,
            num_prefix_tokens=0,
            in_chans=in_chans,
            hidden="sparse",
            maps=tuple(MapSpec(int(stage["num_chs"]), int(stage["reduction"])) for stage in stages),
        )

    def _take_over(self, net: nn.Module) -> None:
        """Hold what the program uses under timm's names; heads stay behind."""
        used = {path.partition(".")[0] for path in self.program.paths}
        for name, part in net.named_children():
            if name in used:
                self.add_module(name, part)
        for name, parameter in net.named_parameters(recurse=False):
            if name in used:
                self.register_parameter(name, parameter)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass."""
        self._recompute = enable

    def _per_stage(self, plan: MaskPlan | None) -> list[Execution]:
        """What computes each stage under the plan."""
        if plan is None or self.border == "cells":
            made = {name: self._in_cells(name, plan) for name in set(self._executions)}
            return [made[name] for name in self._executions]
        size = plan.grid.input_size
        seen = ~plan.at(Grid(size, (1,) * len(size))).unflatten(1, (1, *size))
        widening = LayerMasking(seen, border=self.border, statistics=self.statistics)
        return [widening] * self.program.num_stages

    def _in_cells(self, name: str, plan: MaskPlan | None) -> Execution:
        if plan is not None and name == "tiles":
            return VisibleTiles(plan, statistics=self.statistics)
        return MaskMultiplication(plan, statistics=self.statistics)

    def forward(
        self, x: Float[Tensor, "b c h w"], plan: MaskPlan | None = None, noise: Noise | None = None
    ) -> Encoded:
        """Encode under the plan; see `Encoder.forward`."""
        check_size(x, self.spec.grid)
        runner = Runner(
            self.program,
            self,
            executions=self._per_stage(plan),
            scales=drop_path_scales(self, self.program, noise, training=self.training),
            recompute=self._recompute,
        )
        maps = runner(x)
        tokens = maps[-1].flatten(2).transpose(1, 2)
        if plan is None:
            return Encoded(tokens, self.spec.out_grid, maps=maps)
        tokens = gather_tokens(tokens, plan.keep)
        return Encoded(tokens, self.spec.out_grid, ids=plan.keep, covers="visible", maps=maps)


def _rate(drop_path_rate: float) -> dict[str, float]:
    return {"drop_path_rate": drop_path_rate} if check_drop_path(drop_path_rate) else {}


def _execution_names(execution: str | Sequence[str], num_stages: int) -> tuple[str, ...]:
    names = (execution,) * num_stages if isinstance(execution, str) else tuple(execution)
    known = get_args(ExecutionName)
    if len(names) != num_stages or not set(names) <= set(known):
        raise ValueError(
            f"execution must be one of {', '.join(map(repr, known))}, or {num_stages} of them (stem first), "
            f"got {execution!r}"
        )
    return names


def create_convnet(
    name: str, options: Mapping[str, Any], *, in_chans: int
) -> tuple[nn.Module, list[dict[str, Any]]]:
    """A headless timm model, and what it says of its stages (`num_chs`, `reduction`, `module`).

    Raises ValueError if timm has no such model, refuses the options, or knows no feature maps of it.
    """
    check_name(name)
    try:
        net: Any = timm.create_model(name, num_classes=0, global_pool="", in_chans=in_chans, **options)
    except (AssertionError, TypeError, RuntimeError) as error:
        raise ValueError(f"timm can't build {name!r} with {dict(options)}: {error}") from error
    info = getattr(net, "feature_info", None)
    if isinstance(info, FeatureInfo):
        info = info.info
    if not info:
        raise ValueError(f"timm names no feature maps of {name!r}; a convnet is needed")
    return net, list(info)
