"""Whether a value fits an annotation, and how to say what would."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeGuard, Union, get_args, get_origin

# What typing gives for an annotation: a class, a union, a literal, a generic.
Annotation = Any

_WORDS: Mapping[Annotation, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    NoneType: "null",
}
_PLURALS: Mapping[Annotation, str] = {int: "whole numbers", float: "numbers"}


def _origin(annotation: Annotation) -> Any:
    """The class of a generic, or the annotation itself."""
    origin: Any = get_origin(annotation)
    return annotation if origin is None else origin


def alternatives(annotation: Annotation) -> list[Annotation]:
    """The members of a union, or the annotation alone."""
    if _origin(annotation) in (Union, UnionType):
        return [part for member in get_args(annotation) for part in alternatives(member)]
    return [annotation]


def choices(annotation: Annotation) -> list[Any]:
    """All values that literals among the alternatives allow."""
    literals = (part for part in alternatives(annotation) if _origin(part) is Literal)
    return [value for literal in literals for value in get_args(literal)]


def is_component(annotation: Annotation) -> TypeGuard[type]:
    """Whether the annotation is a class whose objects only a `_target_` can make."""
    return inspect.isclass(annotation) and annotation not in (*_WORDS, list, tuple, dict, object, Any)


def is_list(annotation: Annotation) -> bool:
    """Whether the annotation is a kind of list."""
    return _origin(annotation) in (list, tuple, Sequence, Iterable)


def items_of(annotation: Annotation, length: int) -> list[Annotation] | None:
    """Annotations of a list's items; None if the annotation is no list or one of another length."""
    args: tuple[Any, ...] = get_args(annotation)
    if not is_list(annotation):
        return None
    if _origin(annotation) is tuple and args and args[-1] is not Ellipsis:
        return list(args) if len(args) == length else None
    return [args[0] if args else Any] * length


def values_of(annotation: Annotation) -> Annotation | None:
    """Annotation of the values of a mapping; None if the annotation is no mapping."""
    args: tuple[Any, ...] = get_args(annotation)
    if _origin(annotation) in (dict, Mapping):
        return args[1] if args else Any
    return None


def scalar_fits(value: object, annotation: Annotation) -> bool:
    """Whether a number, text, truth value or null fits one alternative. Whole numbers count as floats."""
    if _origin(annotation) is Literal:
        return any(value == choice and type(value) is type(choice) for choice in get_args(annotation))
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation is Path:
        return isinstance(value, str)
    if annotation in _WORDS:
        return isinstance(value, annotation)
    if is_list(annotation) or values_of(annotation) is not None or _origin(annotation) is Callable:
        return False
    return not is_component(annotation)


def describe(annotation: Annotation) -> str:
    """The annotation in words a YAML author knows."""
    listed = ", ".join(dict.fromkeys(map(str, choices(annotation))))
    rest = [_describe(part) for part in alternatives(annotation) if _origin(part) is not Literal]
    return " or ".join(dict.fromkeys([*([f"one of {listed}"] if listed else []), *rest]))


def _describe(part: Annotation) -> str:
    args: tuple[Any, ...] = get_args(part)
    if is_list(part):
        if _origin(part) is tuple and args and args[-1] is not Ellipsis:
            return f"a list of {len(args)}: " + ", ".join(map(describe, args))
        return f"a list of {_PLURALS.get(args[0], describe(args[0]))}" if args else "a list"
    if values_of(part) is not None:
        return "a mapping"
    if part in _WORDS:
        return _WORDS[part]
    if is_component(part):
        return f"a {part.__name__} (a mapping with _target_)"
    return "a mapping with _target_"
