"""Logging of the package: to the terminal in colours, to a file in full."""

import logging
import logging.handlers
import sys
from io import TextIOWrapper
from pathlib import Path

from termcolor import colored
from tqdm import tqdm

from .printable import printable

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
        file = _LastingFileHandler(Path(output_dir) / "log.txt", encoding="utf-8")
        file.setFormatter(_Formatter(color=False))
        logger.addHandler(file)


def close_logger() -> None:
    """Take away the handlers of ``setup_logger``."""
    logger = logging.getLogger("detlite")
    logger.propagate = True
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
