"""Tables and lists that fit a terminal of 80 columns."""

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from tabulate import tabulate

WIDTH = 80
# What the marks between and beside two columns take, at most: "| a | b |".
_MARKS = 7
# Of the columns that are repeated, at most.
_KEYS_WIDTH = 48


def fitted_table(
    rows: Iterable[Sequence[Any]], headers: Sequence[str], *, num_keys: int = 1, **options: Any
) -> str:
    """A table of tabulate's that is at most 80 columns wide.

    Columns that do not fit stand in further tables below it, each of which begins with the first
    columns again. Where a table must be divided, long text is wrapped.

    Args:
        rows: Cells; text and numbers.
        headers: One name a column.
        num_keys: How many of the first columns every table has.
        options: Of ``tabulate``. A list has an entry for each column.
    """
    rows = [list(row) for row in rows]

    def table(columns: Sequence[int], **further: Any) -> str:
        picked: dict[str, Any] = {
            name: [value[c] for c in columns] if isinstance(value, list | tuple) else value
            for name, value in {**options, **further}.items()
        }
        cells = [[row[c] for c in columns] for row in rows]
        return tabulate(cells, [headers[c] for c in columns], **picked)

    whole = table(range(len(headers)))
    if fits(whole):
        return whole
    keys = list(range(min(num_keys, len(headers) - 1)))
    limits = [_KEYS_WIDTH // max(len(keys), 1)] * len(keys)
    widest = [max(len(str(cell)) for cell in (headers[c], *(row[c] for row in rows))) for c in keys]
    left = WIDTH - _MARKS - sum(map(min, limits, widest)) - 3 * max(len(keys) - 1, 0)
    limits += [left] * (len(headers) - len(keys))
    narrow = {}
    for name in ("maxcolwidths", "maxheadercolwidths"):
        asked = options.get(name, [None] * len(headers))
        narrow[name] = [min(a or WIDTH, limit) for a, limit in zip(asked, limits, strict=True)]
    groups: list[list[int]] = []
    for column in range(len(keys), len(headers)):
        if groups and fits(table([*keys, *groups[-1], column], **narrow)):
            groups[-1].append(column)
        else:
            groups.append([column])
    return "\n\n".join(table([*keys, *group], **narrow) for group in groups)


def fits(text: str) -> bool:
    """Whether every line has at most 80 columns."""
    return all(len(line) <= WIDTH for line in text.splitlines())


def wrapped(text: str, indent: str = "    ") -> str:
    """Text in lines of at most 80 columns, each with an indent."""
    return textwrap.fill(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
