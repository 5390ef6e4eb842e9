"""Parameters by patterns of their names, and many names in few words."""

import difflib
import fnmatch
from collections.abc import Collection, Iterable

from torch import nn

from ..errors import ConfigError

_SHORT_LIST = 4


class ParameterNames:
    """The parameters of a model by name; a parameter that two modules share has two names.

    Args:
        model: Its parameters may have names only until it changes.
    """

    def __init__(self, model: nn.Module) -> None:
        self.parameters = dict(model.named_parameters(remove_duplicate=False))
        self._buffers = [name for name, _ in model.named_buffers(remove_duplicate=False)]

    def matching(self, pattern: str, key: str) -> list[str]:
        """The names that a pattern with ``*``, ``?`` and ``[...]`` matches as a whole.

        Args:
            pattern: Upper and lower case differ.
            key: The config key of the pattern, for the message.

        Raises:
            ConfigError: It matches none; the message has the nearest names.
        """
        found = _filter(self.parameters, pattern)
        if not found:
            raise ConfigError(
                f"{key}: '{pattern}' matches no parameter of the model{self._hint(pattern)}"
            )
        return found

    def _hint(self, pattern: str) -> str:
        if any(name.startswith(f"{pattern}.") for name in self.parameters):
            return f"; '{pattern}' is a module, and '{pattern}.*' matches its parameters"
        buffers = _filter(self._buffers, pattern)
        if buffers:
            return f"; it matches buffers only, such as {buffers[0]}, which are never trained"
        modules = {
            name[:end]: f"{name[:end]}.*"
            for name in self.parameters
            for end in range(len(name))
            if name[end] == "."
        }
        known = [*modules.values(), *self.parameters]
        near = difflib.get_close_matches(pattern, known, n=3, cutoff=0.6)
        if near:
            return f"; the nearest are {', '.join(near)}"
        first = dict.fromkeys(name.partition(".")[0] for name in self.parameters)
        return f"; its parameters are in {', '.join(first) or 'nothing, it has none'}"


def covering_prefixes(names: Iterable[str], others: Collection[str]) -> list[str]:
    """The fewest prefixes of dotted names that hold all of ``names`` and none of ``others``.

    They stand in the order of ``names``; ``[""]`` means everything.
    """
    taken = {
        ".".join(other.split(".")[:length])
        for other in others
        for length in range(other.count(".") + 2)
    }
    prefixes: dict[str, None] = {}
    for name in names:
        parts = name.split(".")
        starts = (".".join(parts[:length]) for length in range(len(parts) + 1))
        prefixes[next(start for start in starts if start not in taken or start == name)] = None
    return list(prefixes)


def in_few_words(words: list[str], separator: str = ", ") -> str:
    """A short list as it is; of a long one the first and how many follow."""
    if len(words) <= _SHORT_LIST:
        return separator.join(words)
    return f"{words[0]} and {len(words) - 1} more"


def _filter(names: Iterable[str], pattern: str) -> list[str]:
    return [name for name in names if fnmatch.fnmatchcase(name, pattern)]
