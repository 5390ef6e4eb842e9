"""What the proofs by mutated files share: a call within limits, and their command line."""

import argparse
import os
import pathlib
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable


def run_within_limits(check: Callable[[], str], seconds: float, num_bytes: int) -> str:
    """What ``check`` returns in a child, or what went wrong there; "" where nothing did.

    Args:
        check: Returns a problem, or "".
        seconds: After which the child is killed.
        num_bytes: Of address space that the child may use beyond what the process has.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + num_bytes
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            text = check()
        except BaseException:
            text = traceback.format_exc(limit=-4)
        os.write(writer, text.encode("utf-8", "backslashreplace")[:4000])
        os._exit(0)
    os.close(writer)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            with os.fdopen(reader, "rb") as pipe:
                text = pipe.read().decode()
            return text if status == 0 else f"{text} the process ended with status {status}"
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reader)
    return f"no answer within {seconds:g} s"


def run_command_line(failures: Callable[[int, int], list[str]], what: str, count: int) -> None:
    """Run ``failures(--count, --seed)``, print what it finds, and exit with 1 if it finds anything.

    Args:
        failures: Makes that many mutations; returns a line for each that went wrong.
        what: Is mutated, for the last line.
        count: Default of ``--count``.
    """
    parser = argparse.ArgumentParser(description=f"Mutated {what}: read or refused, within limits.")
    parser.add_argument("--count", type=int, default=count)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    found = failures(arguments.count, arguments.seed)
    print("\n".join(found))
    print(f"{len(found)} of {arguments.count} mutated {what} went wrong")
    sys.exit(bool(found))
