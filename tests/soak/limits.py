"""A call in a forked process, with limits of time and memory."""

import os
import pathlib
import resource
import signal
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
