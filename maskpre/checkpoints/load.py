"""Loading weights from any source into timm models and into models of this package."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from maskpre.build import build_model
from maskpre.checkpoints.fine_tuned import token_norm
from maskpre.checkpoints.report import LoadReport
from maskpre.checkpoints.resize import fit_positions
from maskpre.checkpoints.source import Source
from maskpre.checkpoints.sources import OwnSource, PlannedWeights, open_source, put_in
from maskpre.encoders.base import Encoder
from maskpre.errors import UserError
from maskpre.model import MaskedModel

# What a classifier adds to an encoder; the norm is fresh where it moves behind the pooling.
HEAD = ("head.", "head_dist.", "fc.", "classifier.")
POOLED_NORM = "fc_norm."
ENCODER_NORM = "norm."
ENCODER = "encoder."


def load_timm(
    source: str,
    *,
    num_classes: int,
    img_size: int | None = None,
    drop_path_rate: float = 0.0,
    global_pool: str | None = None,
    in_chans: int = 3,
    num_frames: int | None = None,
    head_rows: Sequence[int] | None = None,
) -> tuple[nn.Module, LoadReport]:
    """A timm classifier with the weights of `source` (see `open_source`), and what became of them.

    `img_size` and `num_frames` None keep the source's. `global_pool` None averages the patch tokens, behind
    which ViTs get a fresh norm (MAE's and SimMIM's fine-tuning); "token" takes the class token behind the
    encoder's norm, "" pools nothing. A shared relative-position table is copied into every block. The head is
    the source's if it has one for as many classes, or those rows of it that `head_rows` counts out from 0.
    Raises UserError if the weights don't fit or there is no such row.
    """
    opened = open_source(source)
    architecture = opened.architecture().for_fine_tuning(img_size, num_frames)
    channels = architecture.options.get("in_chans", 3)
    if channels != in_chans:
        raise UserError(f"{source} reads {channels} channels, the data have {in_chans}")
    net = architecture.build(
        num_classes=num_classes,
        drop_path_rate=drop_path_rate,
        global_pool="avg" if global_pool is None else global_pool,
    )
    state = opened.encoder()
    if head_rows is not None:
        state = _with_head_rows(state, head_rows, head=head_name(net), source=source)
    report = load_encoder(net, state, source=source, kind=opened.kind)
    return net, replace(report, architecture=architecture)


def head_name(net: nn.Module) -> str:
    """Where in the network its last layer is."""
    head = net.get_classifier()  # type: ignore[operator]
    return next(name for name, module in net.named_modules() if module is head)


def _with_head_rows(
    state: Mapping[str, Tensor], rows: Sequence[int], *, head: str, source: str
) -> dict[str, Tensor]:
    """The same weights, of whose head only these rows are left, in this order."""
    parts = [name for name in (f"{head}.weight", f"{head}.bias") if name in state]
    if not parts:
        raise UserError(f"{source} has no head whose rows could be taken over")
    num_classes = len(state[parts[0]])
    if max(rows) >= num_classes:
        raise UserError(f"{source} has {num_classes} classes, numbered from 0; there is no class {max(rows)}")
    return {**state, **{name: state[name][list(rows)] for name in parts}}


def load_encoder(net: nn.Module, state: Mapping[str, Tensor], *, source: str, kind: str) -> LoadReport:
    """Put timm-named weights into a timm classifier; an empty state leaves it fresh.

    Position tables are resized, heads of another size and tensors without a place are left out. Where tokens
    aren't pooled, the norm of a source's pooled token becomes theirs. Raises UserError if another shape
    differs or a tensor of the encoder is missing.
    """
    like = net.state_dict()
    pools = any(name.startswith(POOLED_NORM) for name in like)
    if not pools and not any(name.startswith(ENCODER_NORM) for name in state):
        state = {token_norm(name): value for name, value in state.items()}
    fitted = _fit(state, like, num_prefix_tokens=_prefix_rows(net))
    left_out = {name: _why_no_place(name, net) for name in fitted if name not in like}
    for name, value in fitted.items():
        if name.startswith(HEAD) and name in like and value.shape != like[name].shape:
            left_out[name] = f"the model has {like[name].shape[0]} classes, the source {value.shape[0]}"
    chosen = {name: value for name, value in fitted.items() if name not in left_out}
    fresh = [name for name in like if name not in chosen]
    if state:
        lost = [name for name in fresh if not name.startswith((*HEAD, POOLED_NORM))]
        _check_complete(lost, source=source, kind=kind)
    _check_shapes(chosen, like, source)
    net.load_state_dict(chosen, strict=False)
    return _report(source, kind, state=state, chosen=chosen, left_out=left_out, fresh=fresh)


def load_model(path: str) -> MaskedModel:
    """The whole model of a checkpoint, or of a folder exported as format=full, in evaluation mode.

    Raises UserError if there is no model in it or the weights don't fit its configuration.
    """
    return restore(open_model(path), path)


def open_model(path: str) -> OwnSource:
    """A checkpoint or exported model of this package; UserError if the path holds anything else."""
    return as_model(open_source(path), path)


def as_model(opened: Source, path: str) -> OwnSource:
    """The same source; UserError if it is no checkpoint or exported model of this package."""
    if not isinstance(opened, OwnSource):
        raise UserError(f"{path} ({opened.kind}) holds no model of this package, only weights")
    return opened


def restore(opened: OwnSource, path: str, *, teachers: Literal["loaded", "blank"] = "loaded") -> MaskedModel:
    """Build the model of an opened checkpoint and put all its weights in; `path` is for messages.

    Frozen teachers are no part of a checkpoint: "loaded" reads their own files again, "blank" leaves those
    unread and the teachers without knowledge (see `load_teachers`). Projections that came from a file are in
    the checkpoint, too, and learn as any other.
    """
    config = {**opened.config, "compile": False}
    config["targets"] = _unread(config["targets"], "projection_weights")
    if teachers == "blank":
        config["teachers"] = _unread(config.get("teachers", {}), "weights")
    model = build_model(OmegaConf.create(config))
    report = _start(model, opened, path)
    if report.fresh or report.left_out:
        raise UserError(f"{path}: the weights don't fit the configuration beside them\n{report}")
    return model.eval()


def _unread(group: Mapping[str, Any], file: str) -> dict[str, Any]:
    """Entries of a group without the file they were told to read."""
    return {name: {**entry, file: None} if file in (entry or ()) else entry for name, entry in group.items()}


def load_teachers(model: MaskedModel, opened: OwnSource) -> None:
    """Read the files of the teachers that a model still has; UserError if one is missing or doesn't fit."""
    for name in model.teachers:
        model.teachers[name] = instantiate(opened.config["teachers"][name])


def load_into(model: MaskedModel, source: str | PlannedWeights) -> LoadReport:
    """Start a model from any source: its encoder must fit, other parts are taken where they do.

    What a target has from a file of its own stays. Position tables are resized. Raises UserError if an
    encoder tensor is missing or has another shape.
    """
    return _start(model, open_source(source), str(source))


def _start(model: MaskedModel, opened: Source, source: str) -> LoadReport:
    state = opened.model()
    like = {name: value for name, value in model.state_dict().items() if not name.startswith("teachers.")}
    encoder = {name: value for name, value in state.items() if name.startswith(ENCODER)}
    fitted = {**state, **_fit(encoder, like, num_prefix_tokens=_spare_rows(model.encoder))}
    left_out = {name: "the model has no place for it" for name in fitted if name not in like}
    left_out |= {name: "the configuration fixes it" for name in _fixed(model) if name in fitted}
    for name, value in fitted.items():
        if not name.startswith(ENCODER) and name in like and value.shape != like[name].shape:
            left_out[name] = f"shape {tuple(value.shape)}, the model's is {tuple(like[name].shape)}"
    chosen = {name: value for name, value in fitted.items() if name not in left_out}
    fresh = [name for name in like if name not in chosen]
    lost = [name for name in fresh if name.startswith(ENCODER) and name != "encoder.mask_token"]
    _check_complete(lost, source=source, kind=opened.kind)
    _check_shapes(chosen, like, source)
    put_in(model, chosen, strict=False)
    _restart_averages(model, chosen)
    return _report(source, opened.kind, state=state, chosen=chosen, left_out=left_out, fresh=fresh)


def _fixed(model: MaskedModel) -> list[str]:
    """What a target has from a file of its own."""
    named = model.named_parameters()
    return [name for name, value in named if name.startswith("targets.") and not value.requires_grad]


def _restart_averages(model: MaskedModel, loaded: Mapping[str, Tensor]) -> None:
    """Averages that the source doesn't have begin anew at the weights that were loaded."""
    for name, average in model.averages.items():
        if not any(key.startswith(f"averages.{name}.") for key in loaded):
            average.restart(model.student)


def _spare_rows(encoder: Encoder) -> int:
    """Rows of an encoder's position table that belong to no cell."""
    table = getattr(encoder, "pos_embed", None)
    return 0 if table is None else int(table.shape[1]) - encoder.spec.grid.num_cells


def _fit(
    state: Mapping[str, Tensor], like: Mapping[str, Tensor], *, num_prefix_tokens: int
) -> dict[str, Tensor]:
    try:
        return fit_positions(state, like, num_prefix_tokens=num_prefix_tokens)
    except ValueError as error:
        raise UserError(str(error)) from error


def _prefix_rows(net: nn.Module) -> int:
    """Rows of a position table that belong to prefix tokens."""
    return 0 if getattr(net, "no_embed_class", False) else int(getattr(net, "num_prefix_tokens", 0))


def _why_no_place(name: str, net: nn.Module) -> str:
    if name.startswith(ENCODER_NORM) and isinstance(getattr(net, "norm", None), nn.Identity):
        return "pooled tokens have a norm of their own"
    return "the model has no place for it"


def _check_complete(lost: Sequence[str], *, source: str, kind: str) -> None:
    if lost:
        raise UserError(f"{source} ({kind}) lacks {len(lost)} tensors of the encoder: {', '.join(lost[:3])}")


def _check_shapes(state: Mapping[str, Tensor], like: Mapping[str, Tensor], source: str) -> None:
    for name, value in state.items():
        if value.shape != like[name].shape:
            raise UserError(
                f"{source}: {name} has shape {tuple(value.shape)}, the model's is {tuple(like[name].shape)}"
            )


def _report(
    source: str,
    kind: str,
    *,
    state: Mapping[str, Tensor],
    chosen: Mapping[str, Tensor],
    left_out: Mapping[str, str],
    fresh: list[str],
) -> LoadReport:
    resized = {
        name: (tuple(state[name].shape), tuple(value.shape))
        for name, value in chosen.items()
        if name in state and state[name].shape != value.shape
    }
    return LoadReport(
        source=source,
        kind=kind,
        loaded=tuple(chosen),
        resized=resized,
        copied=tuple(name for name in chosen if name not in state),
        left_out=left_out,
        fresh=tuple(fresh),
    )
