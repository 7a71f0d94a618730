"""Pictures of what a model saw and what it made of the rest."""

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from maskpre.errors import UserError
from maskpre.inputs import Inputs
from maskpre.model import MaskedModel
from maskpre.objectives import Objective
from maskpre.targets.base import PictureTarget
from maskpre.types import Grid, Located, Step, refine

TITLES = ("original", "visible to the encoder", "reconstruction + visible")
HIDDEN_GREY = 128
# Titles must fit over a column.
MIN_WIDTH = 144
GAP = 4
# What is shown of a clip.
MOST_FRAMES = 4
HEADER = 20


@dataclass(frozen=True)
class Reconstruction:
    """Original, masked (hidden pixels grey), completed pictures or clips: uint8 (b, c, [t,] h, w), 0..255.

    In `completed` hidden pixels are the model's prediction and visible ones the original's.
    """

    original: UInt8[Tensor, "b c *size"]
    masked: UInt8[Tensor, "b c *size"]
    completed: UInt8[Tensor, "b c *size"]


@torch.no_grad()
def reconstruct(step: Step, model: MaskedModel) -> Reconstruction:
    """Turn the predictions of a step back into pictures, by its first objective whose target is a picture.

    Raises UserError if no objective's target is one.
    """
    objective = model.objectives[picture_objective(model)]
    target = cast(PictureTarget, model.targets[objective.target])
    view, inputs = step.views[target.view].float(), cast(Inputs, model.inputs)
    pixels = Grid(tuple(view.shape[2:]), (1,) * (view.dim() - 2))
    prediction = step.predictions[objective.plan][objective.predictor]
    values, known = _everywhere(prediction)
    hidden = step.plans[objective.plan].at(pixels).unflatten(1, pixels.shape)[:, None]
    predicted = refine(known, prediction.grid, pixels).unflatten(1, pixels.shape)[:, None]
    original = inputs.to_picture(target.view, view)
    drawn = inputs.to_picture(target.view, target.to_image(values, step))
    grey = torch.full_like(original, HIDDEN_GREY)
    return Reconstruction(
        original=original,
        masked=torch.where(hidden, grey, original),
        completed=torch.where(hidden, torch.where(predicted, drawn, grey), original),
    )


def picture_objective(model: MaskedModel) -> str:
    """The first objective whose target is a picture; UserError if none is."""
    for name, objective in cast(dict[str, Objective], model.objectives).items():
        if isinstance(model.targets[objective.target], PictureTarget):
            return name
    kinds = ", ".join(f"{name} ({type(target).__name__})" for name, target in model.targets.items())
    raise UserError(f"none of the targets is a picture, so there is nothing to draw: {kinds}")


def _everywhere(prediction: Located) -> tuple[Float[Tensor, "b l k"], Bool[Tensor, "b l"]]:
    """Predictions at all cells in raster order, and whether there is one; zeros where there is none."""
    tokens = prediction.tokens.float()
    if prediction.ids is None:
        return tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    shape = (len(tokens), prediction.grid.num_cells)
    values = tokens.new_zeros(*shape, tokens.shape[2])
    values.scatter_(1, prediction.ids[..., None].expand_as(tokens), tokens)
    counted = prediction.counted
    counted = torch.ones_like(prediction.ids, dtype=torch.bool) if counted is None else counted
    return values, torch.zeros(shape, dtype=torch.bool, device=tokens.device).scatter_(
        1, prediction.ids, counted
    )


def reconstruction_grid(step: Step, model: MaskedModel, num: int) -> NDArray[np.uint8]:
    """The first `num` samples as rows of original, masked and completed picture, titled: uint8 (H, W, 3).

    One channel is shown grey, of more than three the first three. Raises UserError if the model predicts no
    pictures.
    """
    made = reconstruct(step, model)
    columns = [_rgb(_still(part[:num])) for part in (made.original, made.masked, made.completed)]
    height, width = columns[0].shape[1:3]
    canvas = Image.new(
        "RGB", (3 * width + 4 * GAP, HEADER + len(columns[0]) * (height + GAP)), color=(255, 255, 255)
    )
    draw = ImageDraw.Draw(canvas)
    for column, (title, pictures) in enumerate(zip(TITLES, columns, strict=True)):
        left = GAP + column * (width + GAP)
        draw.text((left, GAP), title, fill=(0, 0, 0))
        for row, picture in enumerate(pictures):
            canvas.paste(Image.fromarray(picture), (left, HEADER + row * (height + GAP)))
    return np.asarray(canvas)


def _still(views: UInt8[Tensor, "b c *size"]) -> UInt8[Tensor, "b c h w"]:
    """Pictures as they are; of clips a few frames from the first to the last, side by side."""
    if views.dim() == 4:
        return views
    count = min(MOST_FRAMES, views.shape[2])
    chosen = torch.linspace(0, views.shape[2] - 1, count).round().long()
    return torch.cat(views.index_select(2, chosen.to(views.device)).unbind(2), dim=3)


def _rgb(pictures: UInt8[Tensor, "b c h w"]) -> NDArray[np.uint8]:
    """Pictures (b, h, w, 3), small ones enlarged by a whole factor to at least `MIN_WIDTH` pixels."""
    three = pictures[:, :3] if pictures.shape[1] >= 3 else pictures[:, :1].expand(-1, 3, -1, -1)
    factor = max(1, -(-MIN_WIDTH // three.shape[3]))
    large = three.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    return large.permute(0, 2, 3, 1).cpu().numpy()
