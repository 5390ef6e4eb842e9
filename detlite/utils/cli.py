"""How the command-line tools end: a user's mistake in one message, not in a traceback."""

import argparse
import logging
import os
import sys
from collections.abc import Callable
from io import TextIOWrapper

from ..errors import UserError

USER_MISTAKE = 2
STOPPED = 75  # sysexits.h's EX_TEMPFAIL: try again later, here with --resume
INTERRUPTED = 130
CUT_OFF = 141  # as a shell tells of SIGPIPE


def run_cli(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Parse the command line, run ``main``, and exit.

    ``main`` imports what it needs itself, so that torch, which takes seconds, is imported when the
    command line is known to be right. What is printed is seen at once, also through a pipe.

    A ``UserError`` ends with its message and exit code 2, Ctrl-C with exit code 130; with
    ``--debug``, which is added to the parser, both show their traceback.
    """
    parser.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    # Overrides may stand before and behind the options.
    arguments, unknown = parser.parse_known_intermixed_args()
    if unknown:
        hint = "; a key of the config is written key.path=value, without dashes"
        has_overrides = hasattr(arguments, "overrides")
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint if has_overrides else ''}")
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    try:
        main(arguments)
    except UserError as error:
        if arguments.debug:
            raise
        _tell(f"error: {error}")
        sys.exit(USER_MISTAKE)
    except FloatingPointError as error:
        if arguments.debug:
            raise
        _tell(f"error: training diverged: {error}")
        sys.exit(1)
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough; flushing at the exit would fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(CUT_OFF)
    except KeyboardInterrupt:
        if arguments.debug:
            raise
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _tell(text: str) -> None:
    """Print for the user, once where several processes have found the same."""
    if _is_first_to_say(text):
        who = f"[rank {os.environ['RANK']}] " if "RANK" in os.environ else ""
        print(f"{who}{text}", file=sys.stderr)
        # In the file of a run, which is read later; the terminal has it by now.
        logger = logging.getLogger("detlite.cli")
        record = logger.makeRecord(logger.name, logging.ERROR, __file__, 0, text, (), None)
        for handler in logging.getLogger("detlite").handlers:
            if isinstance(handler, logging.FileHandler):
                handler.handle(record)


def _is_first_to_say(text: str) -> bool:
    # A tool that computes nothing with torch has not imported it, and is one process.
    distributed = sys.modules.get(f"{__package__}.distributed")
    return distributed is None or distributed.is_first_to_say(text)
