"""Scoring videos on several views each."""

import torch
from torch import nn

from maskpre.data import PretrainData, VideoData
from maskpre.errors import UserError
from maskpre.evaluation.features import evaluating, inputs_for, pixels_of
from maskpre.evaluation.result import ProbeResult, count_hits


def score_views(
    model: nn.Module, data: PretrainData, *, clips: int, crops: int, batch_size: int, device: torch.device
) -> ProbeResult:
    """Accuracy on the val split of the mean of a video's class probabilities over its views.

    Views are `clips` clips over time, each in `crops` crops along the longer side (VideoMAE: 5 x 3 on
    Kinetics, 2 x 3 on Something-Something). `batch_size` counts views. Raises UserError for pictures.
    """
    views = clips * crops
    if not isinstance(data, VideoData):
        raise UserError(f"{views} test views need videos, but {type(data).__name__} has pictures")
    loader = data.view_loader("val", clips=clips, crops=crops, batch_size=max(1, batch_size // views))
    inputs = inputs_for(data).to(device)
    counts = torch.zeros(3, dtype=torch.int64)
    with evaluating(model):
        for batch in loader:
            scores = model(inputs.normalize(pixels_of(batch).to(device, non_blocking=True)))
            means = scores.softmax(dim=1).unflatten(0, (-1, views)).mean(dim=1)
            hits = count_hits(means, batch["label"][::views].to(device))
            counts += torch.tensor([*hits, len(means)])
    top1, top5, total = counts.tolist()
    return ProbeResult(top1=top1 / total, top5=top5 / total)
