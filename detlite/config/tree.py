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

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rsplit(":", 1)[1] not in
                ("bool", "float", "timestamp", "int")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }  # fmt: skip


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)"
        r"|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


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
        changes.
        """
        self.values = self._merged(self.values, other.values, other, ())

    def _merged(self, old: Any, new: Any, other: "Tree", path: KeyPath) -> Any:
        mergeable = isinstance(old, dict) and isinstance(new, dict)
        if mergeable and ("name" not in new or old.get("name") == new["name"]):
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
        raise ConfigError(f"{source}: a config is a mapping `key: value`, got {root.value!r:.80}")
    tree.values = _construct(root, (), tree.origins, source)
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
    constructed = None if node is None else _construct(node, path, tree.origins, source)
    tree.origins = {p: Origin(source) for p in (*tree.origins, path)}
    for part in reversed(path):
        constructed = {part: constructed}
    assert isinstance(constructed, dict)
    tree.values = constructed
    return tree


def _construct(node: yaml.Node, path: KeyPath, origins: dict[KeyPath, Origin], source: str) -> Any:
    if path:
        origins[path] = Origin(source, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = _scalar(key_node, source)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise ConfigError(f"{source}:{line}: keys are words, got {key!r}")
            if key in values:
                raise ConfigError(f"{source}:{line}: key '{key}' stands here a second time")
            values[key] = _construct(value_node, (*path, key), origins, source)
            origins[(*path, key)] = Origin(source, line)
        return values
    if isinstance(node, yaml.SequenceNode):
        return [
            _construct(item, (*path, str(i)), origins, source) for i, item in enumerate(node.value)
        ]
    return _scalar(node, source)


def _scalar(node: yaml.Node, source: str) -> Any:
    loader = _Loader("")
    try:
        return loader.construct_object(node, deep=True)
    except yaml.YAMLError as error:
        line = node.start_mark.line + 1
        problem = getattr(error, "problem", None) or error
        raise ConfigError(
            f"{source}:{line}: {problem} (a config holds plain values only)"
        ) from None
    finally:
        loader.dispose()


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
