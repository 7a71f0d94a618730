"""Holding every node of a configuration against the signature of what it names. Nothing is built."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from maskpre.config.expected import (
    Annotation,
    alternatives,
    choices,
    describe,
    is_component,
    is_list,
    items_of,
    scalar_fits,
    values_of,
)
from maskpre.config.schema import SUPPLIED
from maskpre.config.target import Arguments, NoTargetError, arguments_of, locate, product_of
from maskpre.errors import Problem
from maskpre.nearest import did_you_mean

Node = DictConfig | ListConfig

_HYDRA_KEYS = frozenset({"_target_", "_partial_", "_recursive_", "_convert_", "_args_"})


def join(path: str, key: object) -> str:
    """The dotted path of a key below `path`."""
    return f"{path}.{key}" if path else str(key)


def all_paths(node: Node, path: str = "") -> Iterator[str]:
    """Dotted paths of all keys below a node; references are not followed."""
    keys: Iterable[Any] = node if isinstance(node, DictConfig) else range(len(node))
    for key in keys:
        yield join(path, key)
        if not OmegaConf.is_interpolation(node, key) and not OmegaConf.is_missing(node, key):
            child = node[key]
            if isinstance(child, Node):
                yield from all_paths(child, join(path, key))


def _supplied(product: Any, takes: Arguments) -> Mapping[str, str]:
    """Arguments that the program gives to a part, with the key to set instead."""
    kinds = [kind for kind in SUPPLIED if is_component(product) and issubclass(product, kind)]
    given = {name: instead for kind in kinds for name, instead in SUPPLIED[kind].items()}
    return {name: instead for name, instead in given.items() if name in takes.annotations}


@dataclass(frozen=True)
class Walker:
    """Finds what is wrong below `root`, which is the whole configuration."""

    root: DictConfig

    def arguments(
        self, node: DictConfig, path: str, owner: str, takes: Arguments, supplied: Mapping[str, str]
    ) -> Iterator[Problem]:
        """Hold the keys and values of a mapping against what `owner` takes."""
        valid = [name for name in takes.annotations if name not in supplied]
        for key in map(str, node):
            if key in supplied:
                instead = f"; set {supplied[key]} instead" if supplied[key] else ""
                yield Problem(join(path, key), f"the program gives {owner} its {key!r} itself{instead}")
            elif key in takes.annotations:
                yield from self._entry(node, key, join(path, key), takes.annotations[key])
            elif key not in _HYDRA_KEYS and not takes.more:
                yield Problem(join(path, key), self._unknown(join(path, key), owner, valid))
        for name in valid:
            if name in takes.required and name not in list(node):
                expected = describe(takes.annotations[name])
                yield Problem(join(path, name), f"{owner} needs it, but it is not set; expected {expected}")

    def _unknown(self, path: str, owner: str, valid: list[str]) -> str:
        key = path.rpartition(".")[2]
        hint = did_you_mean(key, valid)
        if not hint:
            paths = () if "." in path else all_paths(self.root)
            namesakes = [name for name in paths if name.endswith(f".{key}")]
            hint = f"; did you mean {namesakes[0]!r}?" if namesakes else f"; it has {', '.join(valid)}"
        return f"{owner} has no {key!r}{hint}"

    def _entry(self, parent: Node, key: Any, path: str, annotation: Annotation) -> Iterator[Problem]:
        if OmegaConf.is_missing(parent, key):
            yield Problem(path, f"required, but not set; expected {describe(annotation)}")
        elif OmegaConf.is_interpolation(parent, key):
            yield from self._reference(parent, key, path, annotation)
        else:
            yield from self._content(parent[key], path, annotation)

    def _reference(self, parent: Node, key: Any, path: str, annotation: Annotation) -> Iterator[Problem]:
        """A reference must name something of the right kind; its inside is checked where it stands."""
        plain: Any = OmegaConf.to_container(parent, resolve=False)
        text = str(plain[key])
        try:
            value = parent[key]
        except InterpolationToMissingValueError:
            return
        except OmegaConfBaseException as error:
            hint = did_you_mean(text.strip("${}"), all_paths(self.root))
            yield Problem(path, f"{text} can't be resolved: {str(error).splitlines()[0]}{hint}")
            return
        if isinstance(value, DictConfig) and "_target_" in value:
            with suppress(NoTargetError):
                yield from (Problem(path, found.message) for found in self._kind(value, path, annotation))
        elif not isinstance(value, Node):
            yield from self._scalar(value, path, annotation)

    def _content(self, node: Any, path: str, annotation: Annotation) -> Iterator[Problem]:
        if isinstance(node, ListConfig):
            yield from self._list(node, path, annotation)
        elif not isinstance(node, DictConfig):
            yield from self._scalar(node, path, annotation)
        elif "_target_" in node:
            yield from self._component(node, path, annotation)
        else:
            yield from self._mapping(node, path, annotation)

    def _scalar(self, value: Any, path: str, annotation: Annotation) -> Iterator[Problem]:
        if not any(scalar_fits(value, one) for one in alternatives(annotation)):
            hint = did_you_mean(str(value), map(str, choices(annotation)))
            if str in alternatives(annotation) and isinstance(value, int | float):
                hint = f"; quote it to make it text: \"'{value}'\""
            yield _misfit(path, annotation, repr(value) if value is not None else "null", hint)

    def _list(self, node: ListConfig, path: str, annotation: Annotation) -> Iterator[Problem]:
        kinds = [one for one in alternatives(annotation) if is_list(one) or one is Any]
        fitting = [items for one in kinds if (items := items_of(one, len(node))) is not None]
        if not fitting and Any not in kinds:
            yield _misfit(path, annotation, f"a list of {len(node)}: {node}")
            return
        for index, one in enumerate(fitting[0] if fitting else [Any] * len(node)):
            yield from self._entry(node, index, join(path, index), one)

    def _mapping(self, node: DictConfig, path: str, annotation: Annotation) -> Iterator[Problem]:
        kinds = [one for one in alternatives(annotation) if values_of(one) is not None or one is Any]
        if not kinds:
            yield _misfit(path, annotation, "a mapping without _target_")
            return
        for key in node:
            yield from self._entry(node, key, join(path, key), values_of(kinds[0]) or Any)

    def _component(self, node: DictConfig, path: str, annotation: Annotation) -> Iterator[Problem]:
        """Check that `_target_` exists, its kind and its arguments."""
        try:
            target = locate(str(node["_target_"]))
        except NoTargetError as error:
            yield Problem(join(path, "_target_"), str(error))
            return
        problems = list(self._kind(node, path, annotation))
        if problems:
            yield from problems
            return
        takes = arguments_of(target)
        supplied = _supplied(product_of(target), takes)
        owner = node["_target_"].rpartition(".")[2]
        if supplied and not node.get("_partial_", False):
            given = ", ".join(supplied)
            yield Problem(path, f"{owner} needs _partial_: true, because the program gives it {given}")
        yield from self.arguments(node, path, owner, takes, supplied)

    def _kind(self, node: DictConfig, path: str, annotation: Annotation) -> Iterator[Problem]:
        """Check that `_target_` makes what the place needs."""
        product = product_of(locate(node["_target_"]))
        kinds = alternatives(annotation)
        if not is_component(product) or not all(one is type(None) or _is_nominal(one) for one in kinds):
            return
        if not any(issubclass(product, one) for one in kinds if one is not type(None)):
            yield _misfit(join(path, "_target_"), annotation, node["_target_"])


def _is_nominal(annotation: Annotation) -> bool:
    """Whether subclasses are what an annotation wants."""
    return is_component(annotation) and not getattr(annotation, "_is_protocol", False)


def _misfit(path: str, annotation: Annotation, got: str, hint: str = "") -> Problem:
    return Problem(path, f"expected {describe(annotation)}, got {got}{hint}")
