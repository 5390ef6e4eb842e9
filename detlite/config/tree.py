"""YAML as a tree whose values know the file and line that they came from.

A text may come from a stranger, such as the config within a checkpoint, so its size, its depth and
what its aliases expand to are limited while it is read.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.resolver import Resolver
from yaml.scanner import Scanner

from ..errors import ConfigError, shorten

KeyPath = tuple[str, ...]
# ImageNet-21k's class names, twice, are 0.8 million characters and 44,000 values.
MAX_CHARACTERS = 2_000_000
MAX_VALUES = 50_000
MAX_COPIES = 5_000  # values that aliases repeat
# Deeper than any model, and far from Python's recursion limit.
MAX_DEPTH = 50


@dataclass(frozen=True)
class Origin:
    """Where a value was written."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


# libyaml reads a long list of classes 20 times faster; it is missing where PyYAML was built from
# source without it.
_LIBYAML: Any = getattr(yaml, "cyaml", None)
_EVENTS: Any = (_LIBYAML.CParser,) if _LIBYAML else (Reader, Scanner, Parser)


class _Loader(Composer, *_EVENTS, SafeConstructor, Resolver):  # type: ignore[misc]
    """Safe YAML with version 1.2's scalars: ``1e-4`` is a number, ``no`` and ``on`` are words."""

    def __init__(self, text: str) -> None:
        # Those that read text take it; the others have no arguments.
        _EVENTS[0].__init__(self, text)
        for base in (*_EVENTS[1:], Composer, SafeConstructor, Resolver):
            base.__init__(self)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """The next node; text that is nested too deeply ends here, not in a RecursionError."""
        if self._depth > MAX_DEPTH:
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(
                None, None, f"nested deeper than {MAX_DEPTH} levels", mark
            )
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node  # type: ignore[no-any-return]


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
_PREFIXES = {"0o": 8, "0x": 16}


def _integer(_: _Loader, node: yaml.Node) -> int:
    # 19 digits say 64 bits; int() of very many would take long.
    if len(node.value.lstrip("+-0")) > 30:
        raise OverflowError("an integer beyond 64 bits")
    number = int(node.value, _PREFIXES.get(node.value[:2], 10))
    if not -(2**63) <= number < 2**63:
        raise OverflowError("an integer beyond 64 bits")
    return number


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    number = SafeConstructor.construct_yaml_float(loader, node)
    digits = node.value.lower().partition("e")[0]
    if math.isinf(number) and "inf" not in digits:
        raise OverflowError("a number beyond 1.8e308")
    if number == 0 and any(digit in digits for digit in "123456789"):
        raise OverflowError("a number too small for 64 bits")
    return float(number)


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)
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
        self._forget(old, path)
        self._adopt(new, other, path)
        return new

    def _forget(self, value: Any, path: KeyPath) -> None:
        self.origins.pop(path, None)
        for key, entry in _entries(value):
            self._forget(entry, (*path, key))

    def _adopt(self, value: Any, other: "Tree", path: KeyPath) -> None:
        if path in other.origins:
            self.origins[path] = other.origins[path]
        for key, entry in _entries(value):
            self._adopt(entry, other, (*path, key))

    def _with_entry(self, old: list[Any], step: Step, other: "Tree", path: KeyPath) -> list[Any]:
        ((part, value),) = step.items()
        if part not in map(str, range(len(old))):
            raise ConfigError(
                f"{other.origin((*path, part))}: '{shorten(part)}' is no entry of {dotted(path)}, "
                f"a list of {len(old)}; entries are numbered from 0"
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
    root = _compose(text, source)
    if root is None:
        return tree
    if not isinstance(root, yaml.MappingNode):
        got = "a list" if isinstance(root, yaml.SequenceNode) else repr(shorten(root.value))
        raise ConfigError(f"{source}: a config is a mapping `key: value`, got {got}")
    tree.values = _Constructor(source, tree.origins).value(root, ())
    return tree


def parse_override(text: str) -> Tree:
    """Parse ``key.path=value`` of the command line; the value is YAML.

    Raises:
        ConfigError: There is no key or no "=", or the value is no YAML.
    """
    key, equals, value = text.partition("=")
    path = tuple(part.strip() for part in key.split(".", MAX_DEPTH))
    if not equals or not all(path):
        raise ConfigError(
            "an override is written key.path=value, e.g. solver.optimizer.lr=0.02; got "
            f"'{shorten(text)}'"
        )
    source = f"override '{shorten(text)}'"
    if len(path) > MAX_DEPTH:
        raise ConfigError(f"{source}: its path has more than {MAX_DEPTH} parts")
    _check_text(key, source)
    tree = Tree()
    node = _compose(value, source, "the value is not valid YAML")
    inner: Any = None if node is None else _Constructor(source, tree.origins).value(node, path)
    for part in reversed(path):
        inner = Step({part: inner})
    tree.values = inner
    steps = [path[:length] for length in range(1, len(path) + 1)]
    tree.origins = dict.fromkeys((*steps, *tree.origins), Origin(source))
    return tree


def _compose(text: str, source: str, problem: str = "this is not valid YAML") -> yaml.Node | None:
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(
            f"{source}: {len(text):,} characters are too many for a config, which may have "
            f"{MAX_CHARACTERS:,}"
        )
    _check_text(text, source)
    loader = _Loader(text)
    try:
        return loader.get_single_node()  # type: ignore[no-any-return]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        # An override is one line, which its message shows.
        place = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        place = source if source.startswith("override") else place
        why = getattr(error, "problem", None) or getattr(error, "reason", None) or error
        if mark and text.splitlines()[mark.line : mark.line + 1] and "token" in str(why):
            indent = text.splitlines()[mark.line][: mark.column + 1]
            why = "a tab; YAML indents with spaces" if indent.endswith("\t") else why
        raise ConfigError(f"{place}: {problem}: {shorten(str(why))}") from None
    finally:
        loader.dispose()


def _check_text(text: str, source: str) -> None:
    """Refuse characters that no name of a file or class can have, before anything is made of them.

    Lone surrogates are what Python makes of bytes that are not UTF-8.
    """
    found = _NO_TEXT.search(text)
    if found:
        line = text.count("\n", 0, found.start()) + 1
        raise ConfigError(
            f"{source}: line {line} has the character U+{ord(found[0]):04X}, which is no text; "
            "a config is UTF-8"
        )


_NO_TEXT = re.compile("[\x00\ud800-\udfff]")


def _entries(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return list(value.items())
    return [(str(i), entry) for i, entry in enumerate(value)] if isinstance(value, list) else []


class _Constructor:
    """Makes plain values of YAML nodes, and notes where each was written."""

    def __init__(self, source: str, origins: dict[KeyPath, Origin]) -> None:
        self.source = source
        self.origins = origins
        self._within: list[yaml.Node] = []
        self._scalars = _Loader("")
        self._seen: set[int] = set()
        self._count = self._copies = 0

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        """The value of a node."""
        if path:
            self.origins[path] = Origin(self.source, node.start_mark.line + 1)
        if node.tag not in _PLAIN_TAGS:
            raise self._error(
                node, f"tag '{shorten(node.tag)}' is refused; a config holds plain values"
            )
        if any(node is outer for outer in self._within):
            raise self._error(node, "an anchor that holds an alias of itself has no end")
        self._limit(node)
        self._within.append(node)
        value = self._contents(node, path)
        self._within.pop()
        return value

    def _limit(self, node: yaml.Node) -> None:
        # Aliases can make a few lines mean more values than memory holds.
        self._count += 1
        self._copies += id(node) in self._seen
        self._seen.add(id(node))
        if self._count > MAX_VALUES:
            raise self._error(node, f"more than {MAX_VALUES:,} values are too many for a config")
        if self._copies > MAX_COPIES:
            raise self._error(node, f"aliases repeat more than {MAX_COPIES:,} values")
        if len(self._within) > MAX_DEPTH:
            raise self._error(node, f"nested deeper than {MAX_DEPTH} levels, aliases expanded")

    def _contents(self, node: yaml.Node, path: KeyPath) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, str(i))) for i, item in enumerate(node.value)]
        try:
            # Most values are text, which construct_object is slow to hand over.
            is_text = node.tag == "tag:yaml.org,2002:str"
            value = node.value if is_text else self._scalars.construct_object(node)
        except OverflowError as error:
            raise self._error(node, f"'{shorten(node.value)}' is {error}") from None
        # A tag that does not fit its text, such as `!!int x`, fails in Python's own conversions.
        except (yaml.YAMLError, ValueError, KeyError):
            kind = node.tag.rpartition(":")[2]
            raise self._error(node, f"'{shorten(node.value)}' is no YAML {kind}") from None
        if isinstance(value, str):
            _check_text(value, f"{self.source}:{node.start_mark.line + 1}")  # of "\0", "\ud800"
        return value

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self.value(key_node, ())
            if not isinstance(key, str):
                raise self._error(key_node, f"keys are words, got {shorten(repr(key))}")
            if key == "<<":
                raise self._error(key_node, "YAML 1.2 has no `<<`; name a file in `_base_` instead")
            if key in values:
                raise self._error(key_node, f"key '{shorten(key)}' stands here a second time")
            here = (*path, key)
            values[key] = self.value(value_node, here)
            self.origins[here] = Origin(self.source, key_node.start_mark.line + 1)
        return values

    def _error(self, node: yaml.Node, problem: str) -> ConfigError:
        return ConfigError(f"{self.source}:{node.start_mark.line + 1}: {problem}")


def dotted(path: Sequence[str]) -> str:
    """A path as a user writes it."""
    return ".".join(path)
