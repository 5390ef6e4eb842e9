"""The checks by kind of component, each with the line of the contract that it holds."""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]

CheckFunction = Callable[[Any], None]


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        kinds: Kinds of components that it is for, as their registries say them; () for all.
        function: Takes a ``Subject``; raises ``Broken`` or ``NotApplicable``. The first line of
            its docstring is the claim.
        owner: The class whose page holds the contract; None: the docstring is the contract.
        line: Words of that page.
    """

    kinds: tuple[str, ...]
    function: CheckFunction
    owner: type | None
    line: str

    @property
    def title(self) -> str:
        """The claim."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0].rstrip(".")

    def contract(self) -> str:
        """The line of the contract: file, line number, and words.

        Raises:
            ValueError: The page does not say this (any more).
        """
        if self.owner is None:
            code = self.function.__code__
            said = " ".join((inspect.getdoc(self.function) or "").split())
            return f'{_place(code.co_filename, code.co_firstlineno)}: "{said}"'
        lines, first = inspect.getsourcelines(self.owner)
        offset = _find(lines, self.line)
        if offset is None:
            raise ValueError(f"{self.owner.__name__} does not say {self.line!r}")
        place = _place(inspect.getsourcefile(self.owner) or "?", first + offset)
        method = _method_of(lines[: offset + 1])
        return f'{place}, {self.owner.__name__}{method}: "{self.line}"'


CHECKS: list[Check] = []


def check(
    *kinds: str, of: type | None = None, line: str = ""
) -> Callable[[CheckFunction], CheckFunction]:
    """Add a check to the catalogue.

    Args:
        kinds: Kinds of components that it is for; none for all.
        of: The class whose page holds the contract.
        line: Words of that page, as they stand there.
    """

    def add(function: CheckFunction) -> CheckFunction:
        CHECKS.append(Check(kinds, function, of, line))
        return function

    return add


def checks_of(kind: str) -> list[Check]:
    """The checks of a kind, those of all kinds first."""
    return [check for check in CHECKS if not check.kinds or kind in check.kinds]


def _find(lines: list[str], words: str) -> int | None:
    """Where in the lines the words begin, wherever the lines are broken."""
    wanted = " ".join(words.split())
    text, starts = "", []
    for line in lines:
        starts.append(len(text))
        text += " ".join(line.split()) + " "
    place = re.sub(r" +", " ", text).find(wanted)
    if place < 0:
        return None
    return max(i for i, start in enumerate(starts) if start <= place)


def _method_of(lines: list[str]) -> str:
    """The method that the last of these lines of a class belongs to, as ".name"."""
    for line in reversed(lines):
        found = re.match(r"    def (\w+)|    (\w+): ", line)
        if found:
            return f".{found[1] or found[2]}"
    return ""


def _place(file: str, line: int) -> str:
    path = Path(file)
    shown = path.relative_to(PACKAGE.parent) if path.is_relative_to(PACKAGE.parent) else path
    return f"{shown}:{line}"
