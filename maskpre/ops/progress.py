"""Shares of the training as epochs."""

import math

# An epoch begins where its exact share of the training is reached, in spite of rounding.
ROUNDING = 1e-9


def epoch_of(progress: float, epochs: float) -> int:
    """The epoch, counted from 0, that a share of the training in [0, 1] falls into; the last one at its end.

    Batch sizes and numbers of ranks leave it as it is.
    """
    last = math.ceil(epochs - ROUNDING) - 1
    return max(0, min(math.floor(progress * epochs + ROUNDING), last))
