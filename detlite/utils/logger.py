"""Logging of the package: to the terminal in colours, to a file in full."""

import logging
import logging.handlers
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path

from termcolor import colored
from tqdm import tqdm

from .printable import printable

LOG_FILE = "log.txt"
_COLORS = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}


class _TerminalHandler(logging.Handler):
    """Writes above a progress bar, if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(self.format(record), file=sys.stderr)
        except Exception:
            self.handleError(record)


class _LastingFileHandler(logging.handlers.WatchedFileHandler):
    """Opens its file anew where that, or its folder, was removed; earlier lines are lost then."""

    def _open(self) -> TextIOWrapper:
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        return super()._open()


class _Formatter(logging.Formatter):
    """Time, place and, for whatever is not plain information, the level."""

    def __init__(self, *, color: bool) -> None:
        super().__init__(datefmt="%m/%d %H:%M:%S")
        self.color = color

    def format(self, record: logging.LogRecord) -> str:
        """One record as text."""
        where = f"[{self.formatTime(record, self.datefmt)} {record.name.rpartition('.')[2]}]:"
        level = "" if record.levelno == logging.INFO else f"{record.levelname} "
        if self.color:
            where = colored(where, "green")
            level = colored(level, _COLORS.get(record.levelname))
        text = f"{where} {level}{record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return printable(text)


class _ListHandler(logging.Handler):
    """Keeps records in a list."""

    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__()
        self.records = records

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def setup_logger(output_dir: str | Path | None = None, *, main_process: bool = True) -> None:
    """Send the package's log to the terminal and to ``output_dir/log.txt``; calling again replaces.

    Args:
        output_dir: None for the terminal only.
        main_process: Other processes are told from it by silence, warnings aside.
    """
    logger = logging.getLogger("detlite")
    close_logger()
    logger.propagate = False
    logger.setLevel(logging.INFO if main_process else logging.WARNING)
    terminal = _TerminalHandler()
    terminal.setFormatter(_Formatter(color=sys.stderr.isatty()))
    logger.addHandler(terminal)
    if output_dir is not None and main_process:
        add_log_file(output_dir)


def setup_default_logger(*, main_process: bool = True) -> None:
    """Send the package's log to the terminal, unless the program has a handler for it.

    A handler of the root logger is one for it. A level that the program has set stays.
    """
    logger = logging.getLogger("detlite")
    level = logger.level
    if not logger.hasHandlers():
        setup_logger(main_process=main_process)
        logger.setLevel(level or logger.level)


def add_log_file(
    output_dir: str | Path, earlier: Iterable[logging.LogRecord] = ()
) -> Callable[[], None]:
    """Write the package's log into ``output_dir/log.txt`` too, unless it goes there already.

    Args:
        output_dir: Made where it is missing.
        earlier: Records that come first in the file.

    Returns:
        A function that ends it.
    """
    logger = logging.getLogger("detlite")
    path = os.path.abspath(Path(output_dir) / LOG_FILE)
    for known in (*logger.handlers, *logging.getLogger().handlers):
        if isinstance(known, logging.FileHandler) and known.baseFilename == path:
            return lambda: None
    file = _LastingFileHandler(path, encoding="utf-8")
    file.setFormatter(_Formatter(color=False))
    for record in earlier:
        file.handle(record)
    logger.addHandler(file)

    def end() -> None:
        logger.removeHandler(file)
        file.close()

    return end


@contextmanager
def kept_records() -> Iterator[list[logging.LogRecord]]:
    """The records of the package's log within the context, for a file that comes later."""
    logger = logging.getLogger("detlite")
    handler = _ListHandler([])
    logger.addHandler(handler)
    try:
        yield handler.records
    finally:
        logger.removeHandler(handler)


def close_logger() -> None:
    """Take away the handlers of ``setup_logger``."""
    logger = logging.getLogger("detlite")
    logger.propagate = True
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
