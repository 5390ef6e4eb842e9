"""The schema of a component: its constructor's signature."""

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal, TypeGuard, Union, get_args, get_origin

from ..registry import BlockOf, Registry, filled_registries

_YAML_TYPES = (int, float, str, bool, type(None), list, tuple, dict)
REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Key:
    """A key that a block may have."""

    annotation: Any
    default: Any = REQUIRED


@dataclass(frozen=True)
class Signature:
    """The keys of a component, and whether it takes any others (``**kwargs``)."""

    keys: Mapping[str, Key]
    open_ended: bool


def signature_of(component: Callable[..., Any]) -> Signature:
    """Read the keys off a class or a function."""
    target = component.__init__ if inspect.isclass(component) else component  # type: ignore[misc]
    try:
        hints = typing.get_type_hints(target, include_extras=True)
    except Exception:
        # A foreign class may annotate with names that cannot be resolved; its values go unchecked.
        hints = {}
    keys = {}
    open_ended = False
    for parameter in inspect.signature(component).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            open_ended = True
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            keys[parameter.name] = Key(hints.get(parameter.name, Any), parameter.default)
    if dataclasses.is_dataclass(component):
        for field in dataclasses.fields(component):
            if field.default_factory is not dataclasses.MISSING:
                keys[field.name] = Key(hints[field.name], field.default_factory())
    return Signature(keys, open_ended)


def nested_registry(annotation: Any) -> Registry | None:
    """The registry whose block an annotation stands for, if it stands for a block."""
    if get_origin(annotation) is Annotated:
        for extra in get_args(annotation)[1:]:
            if isinstance(extra, BlockOf):
                return filled_registries()[extra.kind]
    if is_class(annotation):
        for registry in filled_registries().values():
            if registry.interface is not None and issubclass(annotation, registry.interface):
                return registry
    return None


def is_class(annotation: Any) -> TypeGuard[type]:
    """Whether an annotation is a class; Python 3.10 takes ``list[int]`` for one too."""
    return inspect.isclass(annotation) and get_origin(annotation) is None


def without_none(annotation: Any) -> tuple[Any, bool]:
    """``X | None`` as X and True, anything else as it is and False."""
    if get_origin(annotation) in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        if len(members) < len(get_args(annotation)) and len(members) == 1:
            return members[0], True
    return annotation, False


def plain_annotation(annotation: Any) -> Any:
    """An annotation without what YAML cannot hold, as in torch's ``lr: float | Tensor``.

    An enum is said by the values of its members; ``Registry.build`` turns them back.
    """
    origin, members = get_origin(annotation), get_args(annotation)
    if is_class(annotation) and issubclass(annotation, Enum):
        return Literal[tuple(member.value for member in annotation)]
    if origin in (Union, types.UnionType):
        # Beside an enum a string means one of its values, and torch would take any other too.
        enums = any(is_class(member) and issubclass(member, Enum) for member in members)
        kept = [
            plain_annotation(member)
            for member in members
            if _in_yaml(member) and not (enums and member is str)
        ]
        return Union[tuple(kept)] if kept else Any  # noqa: UP007
    if origin in (list, tuple):
        return origin[tuple(m if m is Ellipsis else plain_annotation(m) for m in members)]
    return annotation


def _in_yaml(annotation: Any) -> bool:
    return not is_class(annotation) or annotation in _YAML_TYPES or issubclass(annotation, Enum)


def item_annotation(annotation: Any) -> Any | None:
    """X for ``list[X]``, else None."""
    return get_args(annotation)[0] if get_origin(annotation) is list else None


def describe(annotation: Any) -> str:
    """An annotation in the words of an error message."""
    inner, optional = without_none(annotation)
    if optional:
        return f"{describe(inner)} or null"
    registry = nested_registry(inner)
    if registry is not None:
        return f"a block that names the {registry.kind}"
    if get_origin(annotation) is Annotated:
        base, *extras = get_args(annotation)
        told = [e.description for e in extras if getattr(e, "description", None)]
        if told:
            return str(told[0])
        limits = [_limits(extra) for extra in extras if hasattr(extra, "ge")]
        return " ".join([describe(base), *filter(None, limits)])
    if get_origin(annotation) is typing.Literal:
        choices = [_value(choice) for choice in get_args(annotation)]
        return choices[0] if len(choices) == 1 else "one of " + ", ".join(choices)
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(describe(member) for member in get_args(annotation))
    if get_origin(annotation) in (list, tuple):
        members = [member for member in get_args(annotation) if member is not Ellipsis]
        if get_origin(annotation) is tuple and Ellipsis not in get_args(annotation):
            return f"a list of {len(members)}: {', '.join(describe(m) for m in members)}"
        return f"a list (each entry {describe(members[0])})"
    words = {
        int: "an integer",
        float: "a number",
        str: "a string",
        bool: "true or false",
        list: "a list",
        dict: "a mapping",
    }
    name = getattr(annotation, "__name__", str(annotation))
    return words.get(get_origin(annotation) or annotation, name)


def _limits(meta: Any) -> str:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    bounds = [f"{sign} {getattr(meta, name)}" for name, sign in signs.items()
              if getattr(meta, name) is not None]  # fmt: skip
    if meta.min_length:
        bounds.append(f"with at least {meta.min_length} entries")
    return " and ".join(bounds)


def _value(choice: Any) -> str:
    return "''" if choice == "" else str(choice)
