"""Probes that see augmented pictures: the frozen encoder runs in every step."""

from dataclasses import dataclass
from typing import Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maskpre.evaluation.classifier import ClassifierRecipe
from maskpre.evaluation.features import Pool, encode, pooled
from maskpre.evaluation.heads import build_probe_head


class FrozenClassifier(nn.Module):
    """A trainable head on the pooled features of a frozen encoder, which always runs in evaluation mode."""

    def __init__(self, *, encoder: nn.Module, head: nn.Module, pool: Pool) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        self.head, self.pool = head, pool

    def train(self, mode: bool = True) -> Self:
        """Switch the head only."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, images: Float[Tensor, "b c *size"]) -> Float[Tensor, "b k"]:
        """Class scores."""
        with torch.no_grad():
            features = pooled(encode(self.encoder, images), self.pool)
        return self.head(features)


@dataclass(frozen=True, kw_only=True)
class StreamingLinearProbe:
    """MAE's linear probe as published: the head is trained by `recipe` on augmented pictures."""

    recipe: ClassifierRecipe
    pool: Literal["cls", "avg"] = "cls"

    def classifier(self, encoder: nn.Module, *, num_classes: int, seed: int) -> FrozenClassifier:
        """The encoder, frozen, under a fresh head."""
        generator = torch.Generator().manual_seed(seed)
        width = encoder.num_features
        assert isinstance(width, int)
        head = build_probe_head(width, num_classes, generator=generator)
        return FrozenClassifier(encoder=encoder, head=head, pool=self.pool)
