"""Who reads what of which pass: the order of passes, and the most that is asked of their networks."""

from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from operator import or_

from maskpre.encoders.base import EncoderSpec
from maskpre.errors import Problem
from maskpre.masking.base import Masking
from maskpre.objectives import Objective
from maskpre.passes import Pass
from maskpre.predictors.base import Predictor
from maskpre.targets.base import Target
from maskpre.types import Taps


def read_spec(passes: Mapping[str, EncoderSpec], name: str) -> EncoderSpec:
    """What the network of a pass gives; ValueError if no such pass runs."""
    if name not in passes:
        hint = ", e.g. teacher=timm" if name == "teacher" else ""
        raise ValueError(
            f"reads the pass {name!r}, but only {', '.join(passes)} run; choose that pass's network{hint}"
        )
    return passes[name]


def needed_passes(run: Pass, maskings: Mapping[str, Masking]) -> set[str]:
    """The passes that must run before this one."""
    if run.of is not None:
        return {run.of}
    if run.masking is None:
        return set()
    masking = maskings[run.masking]
    return {*masking.taps} | (set() if masking.reads is None else {masking.reads.run})


def needed_for(
    wanted: Iterable[str], passes: Mapping[str, Pass], maskings: Mapping[str, Masking]
) -> dict[str, Pass]:
    """The passes that are wanted and all that those need, in the order of `passes`."""
    found, open_ends = set[str](), set(wanted)
    while open_ends:
        found |= open_ends
        open_ends = {other for name in open_ends for other in needed_passes(passes[name], maskings)} - found
    return {name: run for name, run in passes.items() if name in found}


def order_passes(passes: Mapping[str, Pass], maskings: Mapping[str, Masking]) -> dict[str, Pass]:
    """The passes as listed, but each after those it needs.

    Raises ValueError if passes need each other in a circle.
    """
    ordered: dict[str, Pass] = {}
    waiting = dict(passes)
    while waiting:
        ready = [name for name, run in waiting.items() if needed_passes(run, maskings) <= set(ordered)]
        if not ready:
            raise ValueError(f"the passes {', '.join(waiting)} need each other's results before they run")
        ordered[ready[0]] = waiting.pop(ready[0])
    return ordered


def collect_taps(
    passes: Mapping[str, Pass],
    maskings: Mapping[str, Masking],
    predictors: Mapping[str, Predictor],
    targets: Mapping[str, Target],
    objectives: Mapping[str, Objective],
) -> dict[str, Taps]:
    """All that is read of each pass: by its own predictors, by masks, and by targets of objectives."""
    found = {
        name: [predictors[key].taps for key in (predictors if run.predictors is None else run.predictors)]
        for name, run in passes.items()
    }
    readers: list[Mapping[str, Taps]] = [targets[one.target].taps for one in objectives.values()]
    readers += [maskings[run.masking].taps for run in passes.values() if run.masking and run.of is None]
    for taps in readers:
        for name, wanted in taps.items():
            found[name].append(wanted)
    return {name: reduce(or_, taps, Taps()) for name, taps in found.items()}


def unread_passes(
    passes: Mapping[str, Pass], maskings: Mapping[str, Masking], taps: Mapping[str, Taps]
) -> Iterator[Problem]:
    """Passes that would run for nothing."""
    needed = {other for run in passes.values() for other in needed_passes(run, maskings)}
    for name, run in passes.items():
        if taps[name] == Taps() and name not in needed:
            yield Problem(
                f"passes.{name}",
                f"nothing reads what {run.network!r} gives here; choose a masking or target that does, or "
                "leave it out",
            )
