"""Several views of each video of the val split."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from maskpre.data import PretrainData, VideoData
from maskpre.data.loader import BatchLoader
from maskpre.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Views:
    """`clips` clips over time, each in `crops` crops along the longer side.

    VideoMAE: 5 x 3 on Kinetics, 2 x 3 on Something-Something.
    """

    clips: int = 1
    crops: int = 1

    def __post_init__(self) -> None:
        for name, value in (("test_clips", self.clips), ("test_crops", self.crops)):
            if value < 1:
                raise UserError(f"{name} must be at least 1, got {value}")

    def __len__(self) -> int:
        return self.clips * self.crops

    def videos(self, data: PretrainData) -> VideoData:
        """The data; UserError if they are pictures."""
        if not isinstance(data, VideoData):
            raise UserError(f"{len(self)} test views need videos, but {type(data).__name__} has pictures")
        return data

    def loader(self, data: PretrainData, *, batch_size: int, rank: int, world: int) -> BatchLoader:
        """A rank's share of the val split in batches of whole videos; `batch_size` counts views.

        Raises UserError for pictures.
        """
        return self.videos(data).view_loader(
            "val",
            clips=self.clips,
            crops=self.crops,
            batch_size=max(1, batch_size // len(self)),
            rank=rank,
            world=world,
        )

    def mean(self, scores: Float[Tensor, "v k"]) -> Float[Tensor, "b k"]:
        """The mean of each video's class probabilities over its views, which follow each other."""
        return scores.float().softmax(dim=1).unflatten(0, (-1, len(self))).mean(dim=1)

    def labels(self, labels: Int[Tensor, "v"]) -> Int[Tensor, "b"]:
        """One label for each video."""
        return labels[:: len(self)]
