"""Nested values as YAML that a person reads."""

from collections.abc import Callable
from typing import Any

import yaml

from .tree import YAML_SCALARS, KeyPath


class _Dumper(yaml.SafeDumper):
    """Quotes a text that YAML 1.1 or 1.2 would take for something else; each stays on its line."""

    def ignore_aliases(self, data: Any) -> bool:
        """Whether a value that stands in several places is written out in each: yes."""
        return True


for _tag, _pattern, _first in YAML_SCALARS:
    _Dumper.add_implicit_resolver(_tag, _pattern, _first)
_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"'
    ),
)


def dump_yaml(values: dict[str, Any], comment: Callable[[KeyPath], str] | None = None) -> str:
    """Write a mapping as YAML, one value a line, with a comment behind each if asked for."""
    lines: list[tuple[str, str]] = []
    _mapping(values, (), "", lines, comment)
    if comment is None:
        return "".join(f"{text}\n" for text, _ in lines)
    width = min(max(len(text) for text, _ in lines), 72)
    return "".join(f"{text:<{width}}  # {note}\n" if note else f"{text}\n" for text, note in lines)


def _mapping(
    values: dict[str, Any],
    path: KeyPath,
    indent: str,
    lines: list[tuple[str, str]],
    comment: Callable[[KeyPath], str] | None,
) -> None:
    for key, value in values.items():
        here = (*path, key)
        if _is_mapping(value):
            lines.append((f"{indent}{format_value(key)}:", ""))
            _mapping(value, here, indent + "  ", lines, comment)
        elif isinstance(value, list) and value and all(_is_mapping(entry) for entry in value):
            lines.append((f"{indent}{format_value(key)}:", ""))
            for i, entry in enumerate(value):
                first = len(lines)
                _mapping(entry, (*here, str(i)), indent + "    ", lines, comment)
                text, note = lines[first]
                lines[first] = (f"{indent}  - {text.lstrip()}", note)
        else:
            text = f"{indent}{format_value(key)}: {format_value(value)}"
            lines.append((text, comment(here) if comment else ""))


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict) and bool(value)


def format_value(value: Any) -> str:
    """A value as YAML in one line."""
    text: str = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, width=10**6, allow_unicode=True
    )
    return text.removesuffix("...\n").strip()
