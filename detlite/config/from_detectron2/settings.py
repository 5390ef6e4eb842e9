"""What a detectron2 YAML says, key by key, and the account of what became of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ...errors import did_you_mean
from .keys import ALIKE, DEFAULTS, MAY_BE_NULL, UNREAD
from .yaml_file import Stated

BY_DEFAULT = "detectron2's default"
LARGEST = 1e300


@dataclass(frozen=True)
class Remark:
    """A key of detectron2 that does not stand in the translation, or not as it was.

    Attributes:
        key: The dotted key.
        value: Its value.
        place: File and line, or that it is the default.
        kind: "lost" if it has an effect there and not here, "fill in" if the user has to complete
            the translation, "no loss" if it has no effect there either, or none that matters.
        advice: Why, and what to do instead.
    """

    key: str
    value: Any
    place: str
    kind: Literal["lost", "fill in", "no loss"]
    advice: str


class Settings:
    """The values of a config of detectron2; notes which keys the translation has dealt with.

    Args:
        stated: What the YAML states, by dotted key; for all other keys the defaults hold.
    """

    def __init__(self, stated: Mapping[str, Stated]) -> None:
        self.stated = stated
        self.remarks: list[Remark] = []
        self.problems: list[str] = []
        self._dealt_with: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self.stated

    def get(self, key: str) -> Any:
        """The value of a key; its default if it is not stated, or stated with a wrong type."""
        default = DEFAULTS[key]
        self._dealt_with.add(key)
        if key not in self.stated:
            return default
        value = self.stated[key].value
        if value is None and key in MAY_BE_NULL:
            return value
        alike = ALIKE.get(key, default)
        # One list for all levels may be written without the list around it.
        nested = isinstance(alike, list) and alike and isinstance(alike[0], list)
        if nested and _fits(value, alike[0]):
            return [value]
        if not _fits(value, alike):
            self.problem(key, f"must be {_kind(alike)}, as {default!r} is")
            return default
        return value

    def place(self, key: str) -> str:
        """Where a key is stated."""
        return self.stated[key].place if key in self.stated else BY_DEFAULT

    def problem(self, key: str, problem: str) -> None:
        """Note a value that detectron2 would refuse too."""
        value = self.stated[key].value if key in self.stated else DEFAULTS[key]
        line = f"{self.place(key)}: {key} {problem}; got {value!r:.80}"
        if line not in self.problems:
            self.problems.append(line)

    def lost(self, key: str, advice: str, also: tuple[str, ...] = ()) -> None:
        """Note a key whose effect the translation lacks, and the stated keys that go with it."""
        self._remark(key, "lost", advice)
        for other in also:
            if other in self.stated:
                self._remark(other, "lost", f"as {key}")

    def fill_in(self, key: str, value: Any, advice: str) -> None:
        """Note something that the user has to complete in the translation."""
        self.remarks.append(Remark(key, value, self.place(key), "fill in", advice))

    def no_loss(self, *keys: str, because: str) -> None:
        """Note those of the keys that are stated, but need no counterpart."""
        for key in keys:
            if key in self.stated:
                self._remark(key, "no loss", because)

    def finish(self) -> None:
        """Note every stated key that nothing has dealt with."""
        sections = {above for key in DEFAULTS for above in _prefixes(key)} - {*DEFAULTS}
        for key, stated in self.stated.items():
            if key in self._dealt_with:
                continue
            group = next((above for above in _prefixes(key) if above in UNREAD), None)
            if group is not None:
                self._remark(key, "no loss", UNREAD[group])
            elif key in sections:
                self.problems.append(
                    f"{stated.place}: {key} is a section, `{key}: {{KEY: value}}`; "
                    f"got {stated.value!r:.80}"
                )
            else:
                near = did_you_mean(key, DEFAULTS)
                self._remark(
                    key,
                    "lost",
                    f"no key of detectron2 itself, but of some project, or misspelt{near}",
                )

    def _remark(self, key: str, kind: Literal["lost", "no loss"], advice: str) -> None:
        self._dealt_with.add(key)
        value = self.stated[key].value if key in self.stated else DEFAULTS[key]
        self.remarks.append(Remark(key, value, self.place(key), kind, advice))


def _prefixes(key: str) -> list[str]:
    """A key and the sections around it."""
    parts = key.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts) + 1)]


def _fits(value: Any, alike: Any) -> bool:
    """Whether a value is of the same type as another; whole numbers are numbers too."""
    if isinstance(alike, list):
        return isinstance(value, list) and (not alike or all(_fits(v, alike[0]) for v in value))
    if isinstance(alike, float):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and abs(value) <= LARGEST  # neither infinite nor NaN
    return type(value) is type(alike)


def _kind(alike: Any) -> str:
    if isinstance(alike, list):
        inner = f" (each entry {_kind(alike[0])})" if alike else ""
        return f"a list{inner}"
    words = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a word"}
    return words[type(alike)]
