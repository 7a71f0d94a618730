"""The networks an evaluation starts from."""

from typing import Literal

from torch import nn

from maskpre.checkpoints.load import load_timm
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
    source: str, data: PretrainData, recipe: ClassifierRecipe, *, start: Start
) -> tuple[nn.Module, LoadReport]:
    """A timm classifier for the data's pictures and classes, with the recipe's pooling and fresh head."""
    net, report = _start(
        source,
        data,
        start=start,
        num_classes=data.num_classes,
        global_pool=recipe.global_pool,
        drop_path_rate=recipe.drop_path_rate,
    )
    head = net.get_classifier()  # type: ignore[operator]
    if recipe.head_std is not None:
        if not isinstance(head, nn.Linear):
            raise UserError(f"recipe.head_std can't initialise a {type(head).__name__}; set it to null")
        nn.init.trunc_normal_(head.weight, std=recipe.head_std)
        nn.init.zeros_(head.bias)
    return net, report


def _start(
    source: str,
    data: PretrainData,
    *,
    start: Start,
    num_classes: int,
    global_pool: str | None,
    drop_path_rate: float,
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
        )
    architecture = open_source(source).architecture()
    architecture = architecture.for_fine_tuning(data.image_size, num_frames_of(data))
    net = architecture.build(
        num_classes=num_classes,
        drop_path_rate=drop_path_rate,
        global_pool="avg" if global_pool is None else global_pool,
    )
    return net, LoadReport(source=source, kind="architecture only", fresh=tuple(net.state_dict()))
