"""The line of the user's or our own code that a stack of calls leads to."""

import os
import re
import traceback
from collections.abc import Iterable
from pathlib import Path

import torch

_NOT_MEANT = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
_FRAME = re.compile(
    r'\s*File "(?P<file>.+)", line (?P<line>\d+), in (?P<function>\S+)\s*(?P<text>.*)'
)


def current_line() -> str:
    """The innermost line that runs now and is of neither torch nor the replay."""
    frames = traceback.extract_stack()
    return _innermost((f.filename, f.lineno or 0, f.name, f.line or "") for f in frames)


def line_of(formatted: Iterable[str]) -> str:
    """The same of a stack that ``traceback.format_stack`` has written."""
    found = [_FRAME.match(frame) for frame in formatted]
    return _innermost(
        (m["file"], int(m["line"]), m["function"], m["text"].partition("\n")[0]) for m in found if m
    )


def _innermost(frames: Iterable[tuple[str, int, str, str]]) -> str:
    meant = [frame for frame in frames if not frame[0].startswith(_NOT_MEANT)]
    if not meant:
        return "a line of torch's own"
    file, line, function, text = meant[-1]
    path = Path(file)
    if path.is_relative_to(Path.cwd()):
        file = os.path.relpath(path)
    return f"{file}:{line} in {function}: {text.strip()}"
