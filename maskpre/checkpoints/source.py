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


class TimmSource(Source):
    """Weights under timm's own names."""

    def __init__(self, *, state: State, architecture: Architecture, kind: str) -> None:
        self.state, self._architecture, self.kind = state, architecture, kind

    def encoder(self) -> State:
        """As they are."""
        return self.state

    def model(self) -> State:
        """Behind "encoder."."""
        return {f"encoder.{name}": value for name, value in self.state.items()}

    def architecture(self) -> Architecture:
        """As given."""
        return self._architecture
