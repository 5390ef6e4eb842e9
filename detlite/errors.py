"""Errors that tell a user what to mend; the command-line tools print them without a traceback."""

import difflib
from collections.abc import Iterable

_LONGEST_NAME = 200  # difflib takes seconds for a million characters


class UserError(Exception):
    """A mistake in what the user gave; the message says what is wrong, the value and what to do."""

    def __str__(self) -> str:
        # Names out of files may hold line noise, or lone surrogates that no log can encode.
        return "".join(
            character if character.isprintable() or character in "\n\t" else repr(character)[1:-1]
            for character in super().__str__()
        )


class ConfigError(UserError, ValueError):
    """The config cannot be used; the message lists every mistake found."""


class DataError(UserError, ValueError):
    """A data set, an annotation or an image cannot be used."""


class CheckpointError(UserError, RuntimeError):
    """A checkpoint cannot be read, or does not belong to the model."""


def shorten(text: str, limit: int = 100) -> str:
    """A text of a user in one line of a message, its middle left out where it is long."""
    if len(text) > limit:
        text = f"{text[: limit - limit // 3]}...{text[len(text) - limit // 3 :]}"
    return text if text.isprintable() else repr(text)[1:-1]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest known name as "; did you mean 'X'?", or "" where none is near."""
    if len(str(name)) > _LONGEST_NAME:
        return ""
    names = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(str(name).lower(), names, n=1, cutoff=0.6)
    return f"; did you mean '{names[near[0]]}'?" if near else ""
