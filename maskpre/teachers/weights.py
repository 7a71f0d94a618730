"""Putting published weights into a teacher."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from maskpre.checkpoints.resize import fit_positions
from maskpre.checkpoints.sources import PlannedWeights, open_source, put_in
from maskpre.encoders.base import Encoder
from maskpre.errors import UserError

PROJECTION = "head.weight"


def load_teacher(
    network: Encoder, projection: nn.Module, *, weights: str | PlannedWeights, name: str
) -> None:
    """Load an encoder from any source `open_source` knows; see `fill_teacher`.

    On the meta device nothing is loaded, but the file is read and compared all the same. Raises UserError if
    there is no such file, or it doesn't fit.
    """
    # A configuration is checked on the meta device, where a file's tensors would lose their values.
    with torch.device("cpu"):
        opened = open_source(weights)
        state = opened.encoder()
    fill_teacher(network, projection, state, where=f"{weights} ({opened.kind})", name=name)


def fill_teacher(
    network: Encoder, projection: nn.Module, state: Mapping[str, Tensor], *, where: str, name: str
) -> None:
    """Put timm-named weights in, positions resized to the grid; a linear `projection` gets CLIP's.

    Raises UserError if tensors of the teacher are missing or there are others than its architecture has.
    """
    like = {key.removeprefix("net."): value for key, value in network.state_dict().items()}
    _check(state, like, where=where, name=name)
    table = getattr(network, "pos_embed", None)
    rows = 0 if table is None else table.shape[1] - network.spec.grid.num_cells
    # Networks with registers are DINOv2's, whose tables are resized with anti-aliasing.
    fitted = fit_positions(
        {key: state[key] for key in like},
        like,
        num_prefix_tokens=rows,
        antialias=getattr(network, "reg_token", None) is not None,
    )
    if isinstance(projection, nn.Linear):
        put_in(projection, {"weight": _projection(state, projection, where)})
    put_in(network, {key: fitted[key.removeprefix("net.")] for key in network.state_dict()})


def _is_table(name: str) -> bool:
    return name.endswith(("pos_embed", "relative_position_bias_table"))


def _check(state: Mapping[str, Tensor], like: Mapping[str, Tensor], *, where: str, name: str) -> None:
    hint = f"; set the teacher's name ({name!r}) and sizes to those of the file"
    for key in (key for key in like if key in state):
        same = state[key].shape[-1:] if _is_table(key) else state[key].shape
        if same != (like[key].shape[-1:] if _is_table(key) else like[key].shape):
            raise UserError(
                f"{where}: {key} has shape {tuple(state[key].shape)}, the teacher's is "
                f"{tuple(like[key].shape)}{hint}"
            )
    missing = [key for key in like if key not in state]
    if missing:
        raise UserError(
            f"{where} lacks {len(missing)} tensors of the teacher: {', '.join(missing[:3])}{hint}"
        )
    deeper = [key for key in state if key.startswith("blocks.") and key not in like]
    if deeper:
        raise UserError(
            f"{where} has {len(deeper)} tensors that the teacher lacks: {', '.join(deeper[:3])}{hint}"
        )


def _projection(state: Mapping[str, Tensor], projection: nn.Linear, where: str) -> Tensor:
    found = state.get(PROJECTION)
    if found is None or found.shape != projection.weight.shape:
        shape = "none" if found is None else f"one of {tuple(found.shape)}"
        raise UserError(
            f"{where} holds {shape} where the teacher's projection is {tuple(projection.weight.shape)}; "
            "projection_dim must be the width of the file's, or null"
        )
    return found
