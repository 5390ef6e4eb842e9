"""A translation as text: YAML in the hand of our configs, and the account of what is missing."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...utils.tables import fitted_table
from ..dump import format_value
from .data import FILL_IN
from .settings import Remark

# Lines of our configs are rarely longer.
WIDTH = 120
SHORT = 60
COMMENT_WIDTH = 100
TITLES = {
    "lost": "Without a counterpart here",
    "fill in": "To be filled in",
    "no loss": "Nothing is lost with these",
}


def config_text(
    config: Mapping[str, Any], first_comment: Sequence[str], remarks: Sequence[Remark]
) -> str:
    """The YAML of a config, blocks in a line each, with comments before and after it.

    Args:
        config: Values of the top and sections.
        first_comment: Lines.
        remarks: The keys that are not in it.
    """
    lines = [_comment(line) for line in first_comment]
    for key, value in config.items():
        lines += _entry(f"{key}: ", value, "", split=isinstance(value, dict) and len(value) > 2)
    lines = [f"{line}  # see below" if FILL_IN in line else line for line in lines]
    return "\n".join([*lines, *_account(remarks), ""])


def remarks_tables(remarks: Sequence[Remark]) -> str:
    """A table of each kind for the console: key, value, and what to do."""
    headers = ["key of detectron2", "value", "where", "why, and what to do"]
    widths = [None, 24, None, 36]
    tables = []
    for kind, title in TITLES.items():
        rows = _grouped([remark for remark in remarks if remark.kind == kind])
        if rows:
            table = fitted_table(rows, headers, maxcolwidths=widths, disable_numparse=True)
            tables.append(f"{title}:\n\n{table}")
    return "\n\n".join(tables)


def flow(value: Any) -> str:
    """A value in a line, as within a flow mapping."""
    if isinstance(value, dict) and value:
        return "{" + ", ".join(f"{key}: {flow(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list) and value:
        return "[" + ", ".join(flow(entry) for entry in value) + "]"
    # Python's literals in a remark, such as a set, may be beyond YAML.
    plain = value if isinstance(value, str | int | float | list | dict | None) else repr(value)
    # Within a list, where more has to be quoted than on a line of its own.
    return format_value([plain])[1:-1]


def _entry(head: str, value: Any, indent: str, *, split: bool = False) -> list[str]:
    """A key or a dash with its value: in one line, or where that is too long or ``split``, more."""
    line = f"{indent}{head}{flow(value) if isinstance(value, dict | list) else format_value(value)}"
    blocks = isinstance(value, list) and value and all(isinstance(entry, dict) for entry in value)
    if blocks and len(line) > SHORT:
        return [
            f"{indent}{head.rstrip()}",
            *(line for entry in value for line in _entry("- ", entry, f"{indent}  ")),
        ]
    if (len(line) <= WIDTH and not split) or not isinstance(value, dict | list) or not value:
        return [line]
    if isinstance(value, list):
        return _wrapped_list(f"{indent}{head}", value, indent)
    inner = indent + "  "
    lines = [line for key, entry in value.items() for line in _entry(f"{key}: ", entry, inner)]
    if head == "- ":
        return [f"{indent}- {lines[0].lstrip()}", *lines[1:]]
    return [f"{indent}{head.rstrip()}", *lines]


def _wrapped_list(head: str, values: list[Any], indent: str) -> list[str]:
    lines, line = [head.rstrip()], f"{indent}  ["
    for i, value in enumerate(values):
        piece = flow(value) + ("," if i + 1 < len(values) else "]")
        if len(line) + len(piece) > COMMENT_WIDTH and not line.endswith("["):
            lines.append(line.rstrip())
            line = f"{indent}   "
        line += piece + " "
    return [*lines, line.rstrip()]


def _account(remarks: Sequence[Remark]) -> list[str]:
    lines: list[str] = []
    for kind, title in TITLES.items():
        chosen = [remark for remark in remarks if remark.kind == kind]
        lines += ["#", _comment(f"{title}:")] if chosen else []
        for key, value, place, advice in _grouped(chosen):
            lines += _wrapped(f"{key}: {value}  ({place})", "  ") + _wrapped(advice, "      ")
    return lines


def _grouped(remarks: Sequence[Remark]) -> list[list[str]]:
    """Key, value, place and advice; those of a section to which the same applies are one."""
    groups: dict[tuple[str, ...], list[Remark]] = {}
    for i, remark in enumerate(remarks):
        alike = (remark.key.rpartition(".")[0], remark.advice)
        groups.setdefault(alike if remark.kind == "no loss" else (str(i),), []).append(remark)
    rows = []
    for members in groups.values():
        first = members[0]
        section = first.key.rpartition(".")[0]
        values = {remark.key.rpartition(".")[2]: remark.value for remark in members}
        key, value = (section, values) if len(members) > 1 and section else (first.key, first.value)
        rows.append([key, flow(value), Path(first.place).name, first.advice])
    return rows


def _wrapped(text: str, indent: str) -> list[str]:
    width = COMMENT_WIDTH - len(indent) - 2
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    return [_comment(f"{indent}{line}") for line in lines]


def _comment(text: str) -> str:
    # A line break in a key or a file name must not begin a line of YAML.
    return "# " + "".join(letter if letter.isprintable() else "?" for letter in text)
