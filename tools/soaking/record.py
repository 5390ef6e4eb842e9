"""What a watched training process leaves behind, whenever it is killed."""

import itertools
import json
import mmap
import os
import struct
import time
from pathlib import Path
from typing import Any

_LAYOUT = struct.Struct("<qq120s")


class Status:
    """Where a process is, in memory that the one who kills it sees.

    Args:
        path: A file that both map; made where it is missing.

    Attributes:
        start_iter: The iteration that the process begins with; -1 before it is known.
        done: Iterations of the run that are finished, hooks included; -1 before it is known.
        phase: What it does, such as ``step`` or ``Evaluation.after_step``.
    """

    def __init__(self, path: Path) -> None:
        with path.open("a+b") as file:
            # Zeros, whoever comes first; they say that nothing is known.
            os.ftruncate(file.fileno(), _LAYOUT.size)
            self._memory = mmap.mmap(file.fileno(), _LAYOUT.size)

    @property
    def start_iter(self) -> int:
        """The first iteration of the process."""
        return int(self._read()[0]) - 1

    @property
    def done(self) -> int:
        """Iterations finished."""
        return int(self._read()[1]) - 1

    @property
    def phase(self) -> str:
        """What it does."""
        text: bytes = self._read()[2]
        return text.rstrip(b"\0").decode() or "start"

    def write(self, start_iter: int, done: int, phase: str) -> None:
        """Say where this process is."""
        _LAYOUT.pack_into(self._memory, 0, start_iter + 1, done + 1, phase.encode()[:120])

    def _read(self) -> tuple[Any, ...]:
        return _LAYOUT.unpack_from(self._memory)


class Record:
    """The files of one attempt: its status, samples read, steps taken and moments passed.

    Lines are appended one by one without a buffer, so that a killed process leaves all of them.

    Args:
        folder: Of the attempt.
        rank: Of the process.
    """

    def __init__(self, folder: Path, rank: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.rank = rank
        self.status = Status(folder / f"status.{rank}")
        self._files: dict[str, int] = {}

    def put(self, name: str, value: Any) -> None:
        """Append a value as a line to ``<name>.<rank>``; also from data workers."""
        if name not in self._files:
            path = self.folder / f"{name}.{self.rank}"
            self._files[name] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.write(self._files[name], (json.dumps(value) + "\n").encode())

    def values(self, name: str) -> list[Any]:
        """What was put."""
        path = self.folder / f"{name}.{self.rank}"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def enter(self, phase: str, start_iter: int = -1, done: int = -1) -> None:
        """Note that a phase begins."""
        self.status.write(start_iter, done, phase)
        self.put("moments", [time.monotonic(), phase])

    def durations(self) -> dict[str, list[float]]:
        """Seconds of every phase that has ended, by name."""
        found: dict[str, list[float]] = {}
        moments = self.values("moments")
        for (start, phase), (end, _) in itertools.pairwise(moments):
            found.setdefault(phase, []).append(end - start)
        return found
