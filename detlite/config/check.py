"""Check a config against the signatures of what it names, and fill in the defaults."""

from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from typing import Any

import msgspec

from ..errors import ConfigError, did_you_mean, shorten
from ..registry import Block, Registry
from .other_words import hint
from .signature import (
    REQUIRED,
    Key,
    describe,
    is_class,
    item_annotation,
    nested_registry,
    plain_annotation,
    signature_of,
    without_none,
)
from .tree import KeyPath, Tree, dotted

# Mistakes of which more are counted, not told.
MAX_TOLD = 20
_LARGEST = 3.4028234663852886e38


class Checker:
    """Walks a tree beside the schema, collects every mistake, and returns completed values."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.problems: list[str] = []

    def section(self, schema: type, values: Any, path: KeyPath) -> Any:
        """Check a section's mapping and make the section of it; None if it has a mistake."""
        title = f"section '{dotted(path)}'" if path else "the config"
        if isinstance(values, schema):
            return values
        if values is None and getattr(schema, "null_is_off", False):
            values = {}
        if not isinstance(values, dict):
            self._report(path, f"{title} must be a mapping `key: value`, got {_shown(values)}")
            return None
        signature = signature_of(schema)
        checked = self._keys(values, signature.keys, title, path)
        before = len(self.problems)
        for name in sorted(set(values) - set(signature.keys)):
            self._unknown(name, signature.keys, title, (*path, name), hint(name, values[name]))
        complete = all(name in checked for name, key in signature.keys.items())
        return schema(**checked) if complete and before == len(self.problems) else None

    def field(self, schema: type, name: str, value: Any) -> Any:
        """Check what is assigned to a field of a section, without its place in a file."""
        keys = signature_of(schema).keys
        if name not in keys:
            self._unknown(name, keys, schema.__name__, (), hint(name, value))
            return None
        return self.value(keys[name].annotation, value, schema.__name__, (name,))

    def block(self, registry: Registry, values: Any, path: KeyPath, wanted: Any = None) -> Any:
        """Check a component's block and complete it; None if it has a mistake."""
        kind, place = registry.kind, dotted(path)
        if not isinstance(values, dict) or "name" not in values:
            got = shorten(", ".join(values)) if isinstance(values, dict) else _shown(values)
            example = shorten(values) if isinstance(values, str) else next(iter(registry), "...")
            self._report(
                path,
                f"{place} must be a block that names the {kind}, e.g. {{name: {example}}}; "
                f"got {got or 'an empty block'}",
            )
            return None
        try:
            component = registry.get(values["name"])
        except ConfigError as error:
            self._report((*path, "name"), str(error))
            return None
        title = f"{kind} '{values['name']}'"
        if _is_other_class(component, wanted):
            self._report((*path, "name"), f"{title} is no {wanted.__name__}, as {place} needs")
            return None
        keys, open_ended = _block_keys(component, registry)
        given = {key: value for key, value in values.items() if key != "name"}
        for key in [key for key in given if key in registry.computed]:
            self._report(
                (*path, key),
                f"{title} gets '{key}' computed, from {registry.computed[key]}; "
                f"remove it (value: {_shown(given.pop(key))})",
            )
        checked = self._keys(given, keys, title, path)
        for key in [key for key in given if key not in keys]:
            if open_ended:
                checked[key] = given[key]
            else:
                self._unknown(key, keys, title, (*path, key), hint(key, given[key]))
        return Block(name=values["name"], **checked)

    def value(self, annotation: Any, value: Any, title: str, path: KeyPath) -> Any:
        """Check one value, which may be a section, a block, or a list of blocks."""
        inner, optional = without_none(annotation)
        if value is None and optional:
            return None
        registry = nested_registry(inner)
        if registry is not None:
            return self.block(registry, value, path, inner)
        if is_class(inner) and is_dataclass(inner):
            return self.section(inner, value, path)
        item = item_annotation(inner)
        item_registry = nested_registry(item)
        if item_registry is not None:
            if not isinstance(value, list):
                self._report(
                    path, f"{title} key '{path[-1]}' must be a list of blocks, got {_shown(value)}"
                )
                return None
            return [
                self.block(item_registry, entry, (*path, str(i)), item)
                for i, entry in enumerate(value)
            ]
        if is_class(item) and is_dataclass(item) and isinstance(value, list):
            return [self.section(item, entry, (*path, str(i))) for i, entry in enumerate(value)]
        return self._plain(annotation, value, title, path)

    def _plain(self, annotation: Any, value: Any, title: str, path: KeyPath) -> Any:
        plain = plain_annotation(annotation)
        extreme = _extreme(value)
        if extreme:
            self._report(path, f"{title} key '{path[-1]}' must be {describe(plain)}, got {extreme}")
            return None
        try:
            return msgspec.convert(value, plain)
        except msgspec.ValidationError as error:
            # msgspec names the entry of a list or mapping at which it stopped: "... - at `$[1]`".
            entry = str(error).partition(" - at `$")[2].rstrip("`")
            self._report(
                path,
                f"{title} key '{path[-1]}' must be {describe(plain)}, got {_shown(value)} "
                f"({type(value).__name__}){'; see entry ' + entry if entry else ''}",
            )
            return None
        except TypeError:
            # An annotation of a foreign class that msgspec cannot express: its own checks decide.
            return value

    def _keys(
        self, values: Mapping[str, Any], keys: Mapping[str, Key], title: str, path: KeyPath
    ) -> dict[str, Any]:
        checked: dict[str, Any] = {}
        for name, key in keys.items():
            inner = without_none(key.annotation)[0]
            if name in values and values[name] is None and type(key.default) is list:
                checked[name] = []  # often a key whose entries are commented out
            elif name in values:
                checked[name] = self.value(key.annotation, values[name], title, (*path, name))
            elif is_class(inner) and is_dataclass(inner) and key.default is REQUIRED:
                checked[name] = self.section(inner, {}, (*path, name))
            elif key.default is REQUIRED:
                self._report(path, f"{title} needs '{name}': {describe(key.annotation)}")
            elif _has_blocks(key.default):
                checked[name] = self.value(key.annotation, key.default, title, (*path, name))
            elif _is_plain(key.default):
                checked[name] = key.default
        return checked

    def _unknown(
        self, name: str, keys: Mapping[str, Key], title: str, path: KeyPath, other: str = ""
    ) -> None:
        if len(self.problems) >= MAX_TOLD:  # finding near names takes time
            self.problems.append("")
            return
        known = ", ".join(sorted(keys)) or "no keys"
        near = did_you_mean(name, keys)
        told = f"{title} has no '{shorten(name)}'{near}{' It' if near else '; it'} has {known}"
        self._report(path, f"{told}.\n    {other}" if other else told)

    def _report(self, path: KeyPath, problem: str) -> None:
        origin = self.tree.origin(path)
        self.problems.append(f"{origin}: {problem}" if origin else problem)


def _extreme(value: Any) -> str:
    """A number within a value that no computation can use, as an error message shows it."""
    if isinstance(value, list | tuple):
        return next(filter(None, map(_extreme, value)), "")
    if isinstance(value, dict):
        return _extreme(list(value.values()))
    if type(value) is int and not -(2**63) <= value < 2**63:
        return f"an integer beyond 64 bits, {shorten(str(value), 60)}"
    # Models compute in float32.
    if type(value) is float and not abs(value) <= _LARGEST:
        return f"{value}, which is not a finite number of 32 bits"
    return ""


def _shown(value: Any) -> str:
    return shorten(repr(value), 60)


def _block_keys(component: Callable[..., Any], registry: Registry) -> tuple[dict[str, Key], bool]:
    signature = signature_of(component)
    keys = {name: Key(*shared) for name, shared in registry.shared_keys.items()}
    keys.update({k: v for k, v in signature.keys.items() if k not in registry.computed})
    return keys, signature.open_ended


def _is_other_class(component: Any, wanted: Any) -> bool:
    # Functions that make a component are trusted.
    both = is_class(component) and is_class(wanted)
    return both and not issubclass(component, wanted)


def _has_blocks(default: Any) -> bool:
    entries = default if isinstance(default, list) else [default]
    return any(isinstance(entry, Block) for entry in entries)


def _is_plain(value: Any) -> bool:
    """Whether YAML can hold a default; those of foreign classes may be functions or enums."""
    if isinstance(value, list | tuple):
        return all(_is_plain(entry) for entry in value)
    return value is None or type(value) in (bool, int, float, str)
