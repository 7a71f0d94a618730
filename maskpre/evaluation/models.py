"""The networks an evaluation starts from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import dropout

from maskpre.checkpoints.load import head_name, load_timm
from maskpre.checkpoints.report import LoadReport
from maskpre.checkpoints.sources import open_source
from maskpre.data import PretrainData
from maskpre.errors import UserError
from maskpre.evaluation.classifier import ClassifierRecipe
from maskpre.evaluation.features import num_frames_of

Start = Literal["checkpoint", "scratch"]


def start_encoder(source: str, data: PretrainData, *, start: Start) -> tuple[nn.Module, LoadReport]:
    """A timm encoder for the data's pictures that ends with its tokens: no pooling, no head."""
    return _start(source, data, start=start, num_classes=0, global_pool="", drop_path_rate=0.0)


def start_classifier(
    source: str,
    data: PretrainData,
    recipe: ClassifierRecipe,
    *,
    start: Start,
    head_rows: Sequence[int] | None = None,
) -> tuple[nn.Module, LoadReport]:
    """A timm classifier for the data's pictures and classes, with the recipe's pooling and dropout.

    Its head is the source's if that has one for as many classes, or rows `head_rows` of the source's, one for
    each class of the data; else fresh. What the recipe doesn't let learn is frozen. Raises UserError if a
    recipe that trains for no epochs would have to score fresh weights, or lets parts learn that aren't there.
    """
    if head_rows is not None and start == "scratch":
        raise UserError("head_rows takes the checkpoint's head over, of which start=scratch keeps nothing")
    net, report = _start(
        source,
        data,
        start=start,
        num_classes=data.num_classes,
        global_pool=recipe.global_pool,
        drop_path_rate=recipe.drop_path_rate,
        head_rows=head_rows,
    )
    head = net.get_classifier()  # type: ignore[operator]
    if not recipe.epochs:
        _check_complete(report, data)
    elif recipe.head_std is not None and _is_fresh_head(net, report):
        _initialise(head, recipe.head_std)
    if recipe.head_dropout:
        _drop_before(head, recipe.head_dropout)
    if recipe.trainable is not None:
        _freeze_all_but(net, recipe.trainable)
    return net, report


def _check_complete(report: LoadReport, data: PretrainData) -> None:
    if report.fresh:
        raise UserError(
            f"recipe.epochs=0 trains nothing, but {report.source} is no classifier of {data.num_classes} "
            f"classes: {', '.join(report.fresh[:3])} would be fresh"
        )


def _initialise(head: nn.Module, std: float) -> None:
    if not isinstance(head, nn.Linear):
        raise UserError(f"recipe.head_std can't initialise a {type(head).__name__}; set it to null")
    nn.init.trunc_normal_(head.weight, std=std)
    nn.init.zeros_(head.bias)


def recompute_activations(net: nn.Module) -> None:
    """Recompute block activations in the backward pass; UserError if the network can't."""
    try:
        net.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError) as error:
        name = type(net).__name__
        raise UserError(f"{name} can't recompute activations; use activation_checkpointing=false") from error


def _is_fresh_head(net: nn.Module, report: LoadReport) -> bool:
    """Whether the head's weights come from no source."""
    return any(fresh.startswith(f"{head_name(net)}.") for fresh in report.fresh)


def _drop_before(head: nn.Module, rate: float) -> None:
    """Dropout of what reaches the head, whatever the network has there."""

    def dropped(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (dropout(args[0], rate, module.training), *args[1:])

    head.register_forward_pre_hook(dropped)


def _freeze_all_but(net: nn.Module, parts: Sequence[str]) -> None:
    """Only these parts learn; layers that hold nothing of them act as in evaluation."""
    names = [name for name, _ in net.named_parameters()]
    for part in parts:
        if not any(f"{name}.".startswith(f"{part}.") for name in names):
            known = ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))
            raise UserError(f"recipe.trainable: {type(net).__name__} has no weights {part!r}, only {known}")
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(any(f"{name}.".startswith(f"{part}.") for part in parts))
    for module in net.modules():
        module.training = any(parameter.requires_grad for parameter in module.parameters())


def read_head_rows(path: str, num_classes: int) -> list[int]:
    """A text file whose line i says which class of a checkpoint's head class i of the data is, from 0.

    Raises UserError unless it is there and has a number for each of `num_classes` classes.
    """
    try:
        lines = Path(path).read_text().split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"head_rows: {path} can't be read: {error}") from error
    wrong = next((line for line in lines if not line.isdecimal()), None)
    if wrong is not None:
        raise UserError(f"head_rows: {path} holds {wrong!r} where a class's number should be")
    if len(lines) != num_classes:
        raise UserError(f"head_rows: {path} has {len(lines)} lines, the data have {num_classes} classes")
    return [int(line) for line in lines]


def _start(
    source: str,
    data: PretrainData,
    *,
    start: Start,
    num_classes: int,
    global_pool: str | None,
    drop_path_rate: float,
    head_rows: Sequence[int] | None = None,
) -> tuple[nn.Module, LoadReport]:
    """`start` "scratch" takes only the architecture from `source`."""
    if start == "checkpoint":
        return load_timm(
            source,
            num_classes=num_classes,
            img_size=data.image_size,
            drop_path_rate=drop_path_rate,
            global_pool=global_pool,
            in_chans=data.channels,
            num_frames=num_frames_of(data),
            head_rows=head_rows,
        )
    architecture = open_source(source).architecture()
    architecture = architecture.for_fine_tuning(data.image_size, num_frames_of(data))
    net = architecture.build(
        num_classes=num_classes,
        drop_path_rate=drop_path_rate,
        global_pool="avg" if global_pool is None else global_pool,
    )
    fresh = tuple(net.state_dict())
    return net, LoadReport(source=source, kind="architecture only", fresh=fresh, architecture=architecture)
