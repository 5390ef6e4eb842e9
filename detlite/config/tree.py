"""YAML as a tree whose values know the file and line that they came from."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError

KeyPath = tuple[str, ...]


@dataclass(frozen=True)
class Origin:
    """Where a value was written."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


class _Loader(yaml.SafeLoader):
    """Safe YAML with version 1.2's scalars: ``1e-4`` is a number, ``no`` and ``on`` are words."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag.rpartition(":")[2] not in ("bool", "float", "int", "merge", "timestamp", "value")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
YAML_SCALARS = (
    (
        "tag:yaml.org,2002:bool",
        re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"),
        list("tTfF"),
    ),
    (
        "tag:yaml.org,2002:int",
        re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"),
        list("-+0123456789"),
    ),
    (
        "tag:yaml.org,2002:float",
        re.compile(
            r"^(?:[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)"
            r"|\.(?:nan|NaN|NAN))$"
        ),
        list("-+0123456789."),
    ),
)
for _tag, _pattern, _first in YAML_SCALARS:
    _Loader.add_implicit_resolver(_tag, _pattern, _first)
_Loader.add_constructor(
    "tag:yaml.org,2002:int",
    lambda _, node: int(node.value, {"0o": 8, "0x": 16}.get(node.value[:2], 10)),
)
_PLAIN_KINDS = ("null", "bool", "int", "float", "str", "seq", "map")
_PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in _PLAIN_KINDS}


class Step(dict[str, Any]):
    """A key of an override's path and what is under it; over a list the key counts entries."""


class Tree:
    """Nested values, and for each path the place where it was written."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.origins: dict[KeyPath, Origin] = {}

    def origin(self, path: KeyPath) -> Origin | None:
        """The place of a value, or of the nearest thing around it."""
        while path and path not in self.origins:
            path = path[:-1]
        return self.origins.get(path)

    def merge(self, other: "Tree") -> None:
        """Lay ``other`` over this tree.

        Mappings merge key by key, everything else is replaced, and so is a block whose ``name``
        changes. A ``Step`` changes one entry of a list.

        Raises:
            ConfigError: A ``Step`` names no entry of a list.
        """
        self.values = self._merged(self.values, other.values, other, ())

    def _merged(self, old: Any, new: Any, other: "Tree", path: KeyPath) -> Any:
        if isinstance(old, list) and isinstance(new, Step):
            return self._with_entry(old, new, other, path)
        mergeable = isinstance(old, dict) and isinstance(new, dict)
        # The whole config is no block: a `name` astray in it must not take its bases away.
        if mergeable and (not path or "name" not in new or old.get("name") == new["name"]):
            merged = dict(old)
            for key, value in new.items():
                merged[key] = self._merged(old.get(key), value, other, (*path, key))
            if path in other.origins:
                self.origins.setdefault(path, other.origins[path])
            return merged
        inside = len(path)
        for known in [known for known in self.origins if known[:inside] == path]:
            del self.origins[known]
        self.origins.update({p: o for p, o in other.origins.items() if p[:inside] == path})
        return new

    def _with_entry(self, old: list[Any], step: Step, other: "Tree", path: KeyPath) -> list[Any]:
        ((part, value),) = step.items()
        if part not in map(str, range(len(old))):
            raise ConfigError(
                f"{other.origin((*path, part))}: '{part}' is no entry of {dotted(path)}, a list of "
                f"{len(old)}; entries are numbered from 0"
            )
        entries = list(old)
        entries[int(part)] = self._merged(old[int(part)], value, other, (*path, part))
        return entries


def parse_yaml(text: str, source: str) -> Tree:
    """Parse a YAML mapping.

    Raises:
        ConfigError: The text is no YAML, no mapping, or has a key twice; with file and line.
    """
    tree = Tree()
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        problem = getattr(error, "problem", None) or error
        raise ConfigError(f"{place}: this is not valid YAML: {problem}") from None
    if root is None:
        return tree
    if not isinstance(root, yaml.MappingNode):
        got = "a list" if isinstance(root, yaml.SequenceNode) else repr(root.value)
        raise ConfigError(f"{source}: a config is a mapping `key: value`, got {got:.80}")
    tree.values = _Constructor(source, tree.origins).value(root, ())
    return tree


def parse_override(text: str) -> Tree:
    """Parse ``key.path=value`` of the command line; the value is YAML.

    Raises:
        ConfigError: There is no key or no "=", or the value is no YAML.
    """
    key, equals, value = text.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    if not equals or not all(path):
        raise ConfigError(
            f"an override is written key.path=value, e.g. solver.optimizer.lr=0.02; got '{text}'"
        )
    tree = Tree()
    source = f"override '{text}'"
    try:
        node = yaml.compose(value, Loader=_Loader)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or error
        raise ConfigError(f"{source}: the value is not valid YAML: {problem}") from None
    inner: Any = None if node is None else _Constructor(source, tree.origins).value(node, path)
    for part in reversed(path):
        inner = Step({part: inner})
    tree.values = inner
    steps = [path[:length] for length in range(1, len(path) + 1)]
    tree.origins = dict.fromkeys((*steps, *tree.origins), Origin(source))
    return tree


class _Constructor:
    """Makes plain values of YAML nodes, and notes where each was written."""

    def __init__(self, source: str, origins: dict[KeyPath, Origin]) -> None:
        self.source = source
        self.origins = origins
        self._within: list[yaml.Node] = []

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        """The value of a node."""
        if path:
            self.origins[path] = Origin(self.source, node.start_mark.line + 1)
        if node.tag not in _PLAIN_TAGS:
            raise self._error(node, f"tag '{node.tag}' is refused; a config holds plain values")
        if any(node is outer for outer in self._within):
            raise self._error(node, "an anchor that holds an alias of itself has no end")
        self._within.append(node)
        value = self._contents(node, path)
        self._within.pop()
        return value

    def _contents(self, node: yaml.Node, path: KeyPath) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, str(i))) for i, item in enumerate(node.value)]
        loader = _Loader("")
        try:
            return loader.construct_object(node)
        # A tag that does not fit its text, such as `!!int x`, fails in Python's own conversions.
        except (yaml.YAMLError, ValueError, KeyError):
            kind = node.tag.rpartition(":")[2]
            raise self._error(node, f"'{node.value}' is no YAML {kind}") from None
        finally:
            loader.dispose()

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self.value(key_node, ())
            if not isinstance(key, str):
                raise self._error(key_node, f"keys are words, got {key!r}")
            if key == "<<":
                raise self._error(key_node, "YAML 1.2 has no `<<`; name a file in `_base_` instead")
            if key in values:
                raise self._error(key_node, f"key '{key}' stands here a second time")
            here = (*path, key)
            values[key] = self.value(value_node, here)
            self.origins[here] = Origin(self.source, key_node.start_mark.line + 1)
        return values

    def _error(self, node: yaml.Node, problem: str) -> ConfigError:
        return ConfigError(f"{self.source}:{node.start_mark.line + 1}: {problem}")


def dotted(path: Sequence[str]) -> str:
    """A path as a user writes it."""
    return ".".join(path)


def read_text(path: Path, named_by: str) -> str:
    """Read a config file.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = sorted(p.name for p in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        hint = f"; in that folder are {', '.join(near)}" if near else ""
        raise ConfigError(f"{named_by}: there is no file {path}{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{named_by}: cannot read {path}: {error}") from None
