"""Read every file of a folder where nothing may be written, started, imported or allocated.

Run as ``read_under_guard.py FOLDER``; prints what came of each file as one line of JSON.
"""

import encodings.cp437  # noqa: F401 - zipfile imports it late, for the names in an archive
import json
import os
import resource
import sys
from pathlib import Path

from detlite.checkpoint.safe_unpickle import check_tensors, read_weights_file
from detlite.errors import CheckpointError

MEMORY = 600 << 20  # bytes beyond what the imports took
FORBIDDEN = (
    "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.startfile", "os.mkdir",
    "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod",
    "subprocess.", "pty.", "shutil.", "tempfile.", "socket.", "ctypes.", "webbrowser.", "urllib.",
    "code.__new__", "pickle.find_class",
)  # fmt: skip

violations: list[str] = []


def guard(event, arguments):
    forbidden = event.startswith(FORBIDDEN)
    if event == "open":
        _, mode, flags = arguments
        writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
        forbidden = bool(set(mode or "") & set("wax+")) or bool((flags or 0) & writing)
    elif event in ("import", "exec", "compile"):
        forbidden = True
    if forbidden:
        violations.append(f"{event} {str(arguments)[:200]}")
        raise PermissionError(f"{event} is not allowed here")


def outcome(path):
    """The error of a file, or what it holds; and what it tried besides."""
    violations.clear()
    try:
        value = read_weights_file(path)
        if path.suffix == ".bin":
            check_tensors(value, path.name)
        told = {"value": value if path.suffix != ".bin" else "weights"}
    except CheckpointError as error:
        told = {"error": str(error)}
    except BaseException as error:  # anything else is a fault, which the test is to see
        told = {"fault": repr(error)[:500]}
    return {**told, "violations": list(violations)}


def main():
    folder = Path(sys.argv[1])
    os.chdir(folder)
    for path in sorted((folder / "good").iterdir()):  # what is imported late is imported here
        read_weights_file(path)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    sys.addaudithook(guard)
    outcomes = {path.name: outcome(path) for path in sorted(folder.iterdir()) if path.is_file()}
    violations.clear()
    try:
        os.system("true")
    except PermissionError:
        outcomes["guard"] = {"violations": list(violations)}
    outcomes["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps(outcomes))


main()
