"""A training as real processes that can be killed: forked here, or started by torchrun."""

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from soaking.watched import train_watched


class Run(Protocol):
    """A training run that is killed again and again.

    The record of attempt k lies in ``attempt_folder(k)``, see ``soaking.record``; what is printed
    in ``output.txt`` there or above.
    """

    def attempt_folder(self, attempt: int) -> Path:
        """The folder of the record of an attempt, counted from 0."""

    def begin(self, attempt: int) -> None:
        """Start an attempt, or wait for one that something else starts after a death."""

    def kill(self, *, with_workers: bool) -> None:
        """Kill the attempt by SIGKILL and return when it is dead, its data workers if asked to."""

    def exit_code(self) -> int | None:
        """What the run has ended with by itself; None while it goes on, negative for a signal."""

    def end(self) -> None:
        """Leave no process behind."""


class ForkedRun:
    """One process an attempt, forked from this one: it has imported what takes seconds.

    Every attempt leads a session of its own. This process must not have computed anything with
    torch, whose threads a fork does not take along.

    Args:
        arguments: The command line of tools/train_net.py, without ``--resume``.
        folder: Where the records go.
    """

    def __init__(self, arguments: Sequence[str], folder: Path) -> None:
        self.arguments = list(arguments)
        self.folder = folder
        self._process = 0
        self._exit_code: int | None = None

    def attempt_folder(self, attempt: int) -> Path:
        return self.folder / f"attempt_{attempt:03d}"

    def begin(self, attempt: int) -> None:
        folder = self.attempt_folder(attempt)
        folder.mkdir(parents=True)
        arguments = [*self.arguments, "--resume"] if attempt else self.arguments
        sys.stdout.flush()
        sys.stderr.flush()
        self._exit_code = None
        self._process = os.fork()
        if self._process == 0:
            _become_training(arguments, folder)

    def kill(self, *, with_workers: bool) -> None:
        if self.exit_code() is not None:
            return
        if with_workers:
            os.killpg(self._process, signal.SIGKILL)
        else:
            os.kill(self._process, signal.SIGKILL)
        while self.exit_code() is None:
            time.sleep(0.0005)

    def exit_code(self) -> int | None:
        if self._exit_code is None and self._process:
            process, status = os.waitpid(self._process, os.WNOHANG)
            if process:
                self._exit_code = os.waitstatus_to_exitcode(status)
                self._process = 0
        return self._exit_code

    def end(self) -> None:
        if self._process:
            self.kill(with_workers=True)


def _become_training(arguments: list[str], folder: Path) -> None:
    """What the child does; it never returns."""
    code = 1
    try:
        os.setsid()
        output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        for standard in (1, 2):
            os.dup2(output, standard)
        train_watched(arguments, folder)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def last_words(attempt_folder: Path) -> str:
    """The end of what an attempt has printed, or the processes of all attempts together."""
    for folder in (attempt_folder, attempt_folder.parent):
        if (folder / "output.txt").is_file():
            return (folder / "output.txt").read_text(errors="replace")[-2000:]
    return "(it has printed nothing)"


def in_child(work: Callable[[], Any]) -> Any:
    """What a function returns that computes with torch, as JSON has it, out of a forked process.

    Raises:
        RuntimeError: The function failed; its traceback has been printed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        code = 1
        try:
            os.close(reader)
            with os.fdopen(writer, "w") as file:
                json.dump(work(), file)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as file:
        text = file.read()
    _, status = os.waitpid(process, 0)
    if status:
        raise RuntimeError("the comparison failed, see above")
    return json.loads(text)
