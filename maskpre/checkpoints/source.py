"""What weights come from."""

from abc import ABC, abstractmethod

from torch import Tensor

from maskpre.checkpoints.architecture import Architecture

State = dict[str, Tensor]


class Source(ABC):
    """Weights from somewhere; `kind` says in words from where."""

    kind: str

    @abstractmethod
    def encoder(self) -> State:
        """The encoder's tensors, and a head's if any, under timm's names; empty for fresh weights."""

    @abstractmethod
    def model(self) -> State:
        """The tensors under MaskedModel's names."""

    @abstractmethod
    def architecture(self) -> Architecture:
        """The timm model the encoder's tensors fit into."""
