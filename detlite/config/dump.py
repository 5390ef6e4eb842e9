"""Nested values as YAML that a person reads."""

from collections.abc import Callable
from typing import Any

import yaml

from .tree import KeyPath


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
        if isinstance(value, dict) and value:
            lines.append((f"{indent}{key}:", ""))
            _mapping(value, here, indent + "  ", lines, comment)
        elif isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
            lines.append((f"{indent}{key}:", ""))
            for i, entry in enumerate(value):
                first = len(lines)
                _mapping(entry, (*here, str(i)), indent + "    ", lines, comment)
                text, note = lines[first]
                lines[first] = (f"{indent}  - {text.lstrip()}", note)
        else:
            lines.append((f"{indent}{key}: {_scalar(value)}", comment(here) if comment else ""))


def _scalar(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("...\n").strip()
