"""The metrics of a run in one file that programs read."""

import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from ...checkpoint import save_atomically
from ..hook_base import HookBase
from ..registries import HOOK_REGISTRY
from ..run_files import METRICS, read_metrics
from ..trainer import Trainer

logger = logging.getLogger(__name__)


@HOOK_REGISTRY.register
class JSONWriter(HookBase):
    """``metrics.json`` in the output folder: one JSON object a line.

    A resumed run goes on in the same file; lines of iterations that it repeats are dropped. A line
    is on the disk before its iteration's checkpoint is. Where it cannot be written, the disk being
    full, lines wait in memory for the next one, and only the end of the run loses them. A file
    that is removed during the run is made anew with all that stood in it.

    Args:
        output_dir: Folder of the file.
    """

    def __init__(self, *, output_dir: str) -> None:
        self.path = Path(output_dir) / METRICS
        self._file: BinaryIO | None = None
        self._waiting: list[bytes] = []
        self._is_failing = False

    def before_train(self, trainer: Trainer) -> None:
        """Keep what was written before the iteration at which the run begins."""
        self.close(trainer)
        kept = [e for e in read_metrics(self.path) if e["iteration"] < trainer.start_iter]
        self._begin(b"".join(_line(entry) for entry in kept))

    def after_restore(self, trainer: Trainer) -> None:
        """Drop the lines of the iterations that are repeated."""
        self._write()
        self._waiting = [
            line for line in self._waiting if json.loads(line)["iteration"] < trainer.start_iter
        ]
        waiting, self._waiting = self._waiting, []
        self.before_train(trainer)
        self._waiting = waiting

    def after_step(self, trainer: Trainer) -> None:
        """Write a line where a summary is due."""
        if trainer.summary is None:
            return
        # JSON knows no NaN.
        values = {k: v if math.isfinite(v) else None for k, v in trainer.summary.items()}
        self._waiting.append(_line({"iteration": trainer.iter, **values}))
        self._write()

    def close(self, trainer: Trainer) -> None:
        """Close the file."""
        if self._waiting:
            self._write()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin(self, content: bytes) -> None:
        save_atomically(content, self.path)
        self._file = self.path.open("a+b", buffering=0)

    def _write(self) -> None:
        try:
            if self._is_gone():
                self._make_anew()
            self._append(b"".join(self._waiting))
        except OSError as error:
            if not self._is_failing:
                logger.error(
                    "%s cannot be written: %s; training goes on, and its lines wait in memory. "
                    "Make room on the disk before the run ends, or they are lost",
                    self.path,
                    error,
                )
            self._is_failing = True
            return
        if self._is_failing:
            logger.info("%s is written again, nothing of it is missing", self.path)
        self._is_failing = False
        self._waiting.clear()

    def _append(self, content: bytes) -> None:
        assert self._file is not None
        size = os.fstat(self._file.fileno()).st_size
        try:
            while content:
                content = content[self._file.write(content) :]
            os.fsync(self._file.fileno())
        except OSError:
            # No half line stays in the middle of the file.
            os.ftruncate(self._file.fileno(), size)
            raise

    def _is_gone(self) -> bool:
        assert self._file is not None
        try:
            return not os.path.samestat(os.stat(self.path), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return True

    def _make_anew(self) -> None:
        """A removed file can be read until it is closed."""
        assert self._file is not None
        self._file.seek(0)
        content = self._file.read()
        removed, self._file = self._file, None
        try:
            self._begin(content)
        finally:
            if self._file is None:
                self._file = removed
            else:
                removed.close()
        logger.warning("%s was removed during the run and is written anew", self.path)


def _line(entry: Mapping[str, float | None]) -> bytes:
    return json.dumps(entry).encode() + b"\n"
