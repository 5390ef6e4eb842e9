"""Read a YAML as detectron2's yacs does, but safely: its bases, its tuples in strings, its eval.

detectron2 reads YAML 1.1 (``yes`` is true, ``1e-4`` a string) and then turns each string that is a
Python literal into its value; both are kept here. Any Python tag beside the two harmless ones is
refused, whereas detectron2 would run it.
"""

import ast
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ...errors import ConfigError
from ..files import read_text
from .expression import evaluate

MAX_NODES = 100_000
BASE_KEY = "_BASE_"
_MAPPING_TAG = "tag:yaml.org,2002:map"
_MERGE_TAG = "tag:yaml.org,2002:merge"
_EVAL_TAG = "tag:yaml.org,2002:python/object/apply:eval"
_TUPLE_TAG = "tag:yaml.org,2002:python/tuple"


@dataclass(frozen=True)
class Stated:
    """A value that a YAML states, tuples as lists, and the file and line."""

    value: Any
    place: str


def read_detectron2_yaml(path: str | os.PathLike[str]) -> dict[str, Stated]:
    """Read a YAML of detectron2 and its bases.

    Returns:
        What they state, by dotted key (``MODEL.RESNETS.DEPTH``); what a base states stands first.

    Raises:
        ConfigError: A file cannot be read, is no YAML, holds code, or names itself as its base.
    """
    path = Path(path)
    if path.suffix == ".py":
        raise ConfigError(
            f"{path}: this is a LazyConfig, Python code that would have to run to be read. Only "
            "YAMLs are translated; begin with the nearest of configs/retinanet instead"
        )
    return _read(path, f"{path}", ())


def _read(path: Path, named_by: str, within: tuple[Path, ...]) -> dict[str, Stated]:
    if path.resolve() in within:
        chain = " -> ".join(p.name for p in (*within, path))
        raise ConfigError(f"{named_by}: `{BASE_KEY}` goes round in a circle: {chain}")
    own = _parse(read_text(path, named_by), _source(path))
    bases = own.pop(BASE_KEY, Stated([], ""))
    entries = [bases.value] if isinstance(bases.value, str) else bases.value
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise ConfigError(
            f"{bases.place}: `{BASE_KEY}` must be a path or a list of paths, got {entries!r:.60}"
        )
    merged: dict[str, Stated] = {}
    for entry in entries:
        if entry.startswith(("http://", "https://")):
            raise ConfigError(
                f"{bases.place}: `{BASE_KEY}` is a URL, {entry}; download it and name the file"
            )
        base = path.parent / os.path.expanduser(entry)
        _merge(merged, _read(base, bases.place, (*within, path.resolve())))
    _merge(merged, own)
    return merged


def _source(path: Path) -> str:
    return os.path.relpath(path) if path.resolve().is_relative_to(Path.cwd()) else str(path)


def _merge(merged: dict[str, Stated], own: dict[str, Stated]) -> None:
    sections = {above: key for key in merged for above in _above(key)}
    for key, stated in own.items():
        outer = next((above for above in _above(key) if above in merged), None)
        if key in sections or outer is not None:
            other = merged[outer if outer is not None else sections[key]]
            raise ConfigError(
                f"{stated.place}: {key} is a value in one file and a section in another, "
                f"{other.place}"
            )
        merged[key] = stated


def _above(key: str) -> Iterator[str]:
    """The sections around a key."""
    parts = key.split(".")
    return (".".join(parts[:length]) for length in range(1, len(parts)))


def _parse(text: str, source: str) -> dict[str, Stated]:
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        _check_size(root, source)
        values: dict[str, Stated] = {}
        if isinstance(root, yaml.MappingNode):
            _collect(loader, root, "", source, values)
        elif root is not None:
            raise ConfigError(f"{source}: a config of detectron2 is a mapping `KEY: value`")
        return values
    except _RefusedNode as error:
        raise ConfigError(f"{source}:{error.line}: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        problem = getattr(error, "problem", None) or error
        raise ConfigError(f"{place}: this is not valid YAML: {problem}") from None
    except RecursionError:
        raise ConfigError(f"{source}: this YAML is nested too deeply") from None


def _collect(
    loader: "_Loader", node: yaml.MappingNode, above: str, source: str, values: dict[str, Stated]
) -> None:
    """Put what a mapping states into ``values``, by dotted key."""
    own: set[str] = set()
    if node.tag != _MAPPING_TAG:
        loader.refused(node)
    for key_node, value_node in node.value:
        name = loader.plain(key_node) if key_node.tag != _MERGE_TAG else "<<"
        place = f"{source}:{key_node.start_mark.line + 1}"
        if type(name) not in (str, int) or not str(name).isprintable():
            raise _RefusedNode(key_node, f"a key is a word such as SOLVER, got {name!r:.60}")
        if name == "<<" or "." in str(name):
            raise _RefusedNode(
                key_node, f"write the keys of '{name}' out, nested in their sections"
            )
        key = f"{above}{name}"
        if name in own:
            raise _RefusedNode(
                key_node,
                f"{key} stands here a second time; detectron2 takes the last, remove the others",
            )
        own.add(name)
        if value_node.tag == _MAPPING_TAG and key != BASE_KEY:
            _collect(loader, value_node, f"{key}.", source, values)
        else:
            values[key] = Stated(_literal(loader.plain(value_node)), place)


def _literal(value: Any) -> Any:
    """The value of a string that is a Python literal; anything else as it is. Tuples as lists."""
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return value
    return _as_lists(value)


def _as_lists(value: Any) -> Any:
    return [_as_lists(v) for v in value] if isinstance(value, list | tuple) else value


def _check_size(root: yaml.Node | None, source: str) -> None:
    # Aliases make a tree of any size, or one without end, out of a few lines.
    pending, count = [root] if root is not None else [], 0
    while pending:
        node = pending.pop()
        count += 1
        if count > MAX_NODES:
            raise ConfigError(
                f"{source}: with its aliases (`*name`) this YAML holds more than {MAX_NODES} "
                "values; write them out"
            )
        if isinstance(node, yaml.MappingNode):
            pending += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            pending += node.value


class _RefusedNode(Exception):
    """A value that is refused, and its line."""

    def __init__(self, node: yaml.Node, problem: str) -> None:
        super().__init__(problem)
        self.line = node.start_mark.line + 1


class _Loader(yaml.SafeLoader):
    """Safe YAML 1.1, with detectron2's two tags and a refusal of all others."""

    def plain(self, node: yaml.Node) -> Any:
        """The value of a node."""
        try:
            return self.construct_object(node, deep=True)
        # A tag that does not fit its text, such as `!!int x`, fails in Python's own conversions.
        except (ValueError, KeyError, AttributeError, TypeError, IndexError):
            kind = node.tag.rpartition(":")[2]
            raise _RefusedNode(node, f"'{node.value}' is no YAML {kind}") from None

    def evaluated(self, node: yaml.Node) -> Any:
        """The value of ``!!python/object/apply:eval ["..."]``."""
        texts = self.construct_sequence(node) if isinstance(node, yaml.SequenceNode) else []
        if len(texts) != 1 or not isinstance(texts[0], str):
            raise _RefusedNode(node, 'the eval tag is understood as !!...:eval ["expression"] only')
        try:
            return evaluate(texts[0])
        except ConfigError as error:
            raise _RefusedNode(node, str(error)) from None

    def sequence(self, node: yaml.Node) -> list[Any]:
        """The values of ``!!python/tuple [...]``."""
        if not isinstance(node, yaml.SequenceNode):
            raise _RefusedNode(node, "the tag !!python/tuple stands before a list")
        return self.construct_sequence(node, deep=True)

    def refused(self, node: yaml.Node) -> Any:
        """Any tag that is not plain."""
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")
        raise _RefusedNode(
            node,
            f"the tag {tag} is refused: detectron2 would let it make any Python object. Write a "
            "plain value instead",
        )


_Loader.add_constructor(_EVAL_TAG, _Loader.evaluated)
_Loader.add_constructor(_TUPLE_TAG, _Loader.sequence)
_Loader.add_constructor(None, _Loader.refused)
