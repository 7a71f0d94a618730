"""The nearest valid name or number, for messages to users."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """'; did you mean ...?' with the name most like `name`, or nothing if none is."""
    close = get_close_matches(name, list(valid), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def nearest_number(number: int, valid: Iterable[int]) -> str:
    """'; nearest: ...' with the valid numbers on either side of `number`, or nothing if there are none."""
    ordered = sorted(set(valid))
    below = [one for one in ordered if one <= number][-1:]
    above = [one for one in ordered if one > number][:1]
    if not below + above:
        return ""
    return f"; nearest: {' or '.join(map(str, below + above))}"


def divisors(number: int) -> list[int]:
    """All positive divisors."""
    return [one for one in range(1, number + 1) if number % one == 0]


def multiples(step: int, *, near: int) -> list[int]:
    """The positive multiples of `step` next to a number."""
    low = near // step * step
    return [one for one in (low, low + step) if one > 0]
