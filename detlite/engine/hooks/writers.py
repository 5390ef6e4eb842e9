"""Where the summaries of metrics go: terminal, TensorBoard. Writers stand behind MetricSummary."""

import datetime
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...ranges import PositiveFloat
from ..hook_base import HookBase
from ..registries import HOOK_REGISTRY
from ..trainer import Trainer
from .metrics import peak_memory

logger = logging.getLogger(__name__)


@HOOK_REGISTRY.register
class ConsoleWriter(HookBase):
    """A line of the log: time left, iteration, losses, seconds a step, learning rate, memory.

    A line comes with every summary, when the first iteration of a process ends, and where none has
    come for ``max_silence`` seconds. The latter two show the averages since the last summary and
    take nothing away, so that what is written and checkpointed does not depend on a clock. The
    first iteration warms up: seconds and time left do not count it, once there are others.

    What went wrong in the data and was mended, and steps left out, are counted in it.

    Args:
        max_silence: Seconds after which a line comes though no summary is due.
    """

    def __init__(self, *, max_silence: PositiveFloat = 30.0) -> None:
        self.max_silence = max_silence
        self._is_first = True
        self._last_line = 0.0
        self._step_seconds: list[float] = []

    def before_train(self, trainer: Trainer) -> None:
        """Begin anew."""
        self._is_first, self._step_seconds = True, []

    def after_step(self, trainer: Trainer) -> None:
        """Write a line where one is due."""
        summary, seconds = trainer.summary, trainer.step_seconds
        if not self._is_first:
            self._step_seconds.append(seconds)
            seconds = sum(self._step_seconds) / len(self._step_seconds)
        silent = time.monotonic() - self._last_line >= self.max_silence
        if summary is not None:
            self._step_seconds = []
        elif self._is_first or silent:
            summary = trainer.buffer.means() | {"memory": peak_memory()}
        self._is_first = False
        if summary is not None:
            self._last_line = time.monotonic()
            self._write(trainer, summary, seconds)

    def _write(self, trainer: Trainer, summary: Mapping[str, float], seconds: float) -> None:
        left = datetime.timedelta(seconds=int(seconds * (trainer.max_iter - trainer.iter - 1)))
        losses = [f"{k}: {v:.4g}" for k, v in summary.items() if "loss" in k and "/" not in k]
        logger.info(
            "eta: %s  iter: %d/%d  %s  time: %.4f  data_time: %.4f  lr: %.4g  max_mem: %.0fM%s",
            left,
            trainer.iter,
            trainer.max_iter,
            "  ".join(losses),
            seconds,
            summary.get("data_time", 0.0),
            summary.get("lr", math.nan),
            summary["memory"],
            "".join(f"  {name}: {count}" for name, count in faults(trainer).items()),
        )


def faults(trainer: Trainer) -> dict[str, int]:
    """What has gone wrong so far and not ended the run: kind and number, those above 0."""
    counts = dict(getattr(trainer.loader, "faults", {}))
    for hook in trainer.hooks:
        counts |= getattr(hook, "faults", {})
    return {name: int(count) for name, count in sorted(counts.items()) if count}


@HOOK_REGISTRY.register
class TensorBoardWriter(HookBase):
    """Curves and pictures for TensorBoard, in the folder ``tensorboard`` of the output folder.

    Without the package tensorboard, which is optional, it only says how to get it. If the folder
    is removed during the run, the curves begin anew in a new one.

    Args:
        output_dir: Folder of the run.
    """

    def __init__(self, *, output_dir: str) -> None:
        self.folder = Path(output_dir) / "tensorboard"
        self._writer: Any = None

    def before_train(self, trainer: Trainer) -> None:
        """Open the file; what an interrupted run wrote of later iterations is hidden."""
        try:
            # Here and not above: an optional dependency, and slow to import.
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            logger.info("no curves for TensorBoard; `pip install tensorboard` brings them")
            return
        self._writer = SummaryWriter(str(self.folder), purge_step=trainer.start_iter)

    def after_step(self, trainer: Trainer) -> None:
        """Write the values where a summary is due, and pictures where there are new ones."""
        values, pictures = trainer.summary or {}, trainer.pictures
        if self._writer is None or not (values or pictures):
            return
        try:
            if not self.folder.is_dir():
                self._open_anew(trainer)
            for name, value in values.items():
                self._writer.add_scalar(name, value, trainer.iter)
            for name, picture in pictures.items():
                self._writer.add_image(f"pictures/{name}", picture, trainer.iter, dataformats="HWC")
            self._writer.flush()
        except OSError as error:
            logger.warning("no more curves for TensorBoard, %s: %s", self.folder, error)
            self._writer = None

    def after_restore(self, trainer: Trainer) -> None:
        """Hide what was written of the iterations that are repeated."""
        if self._writer is not None:
            self._open_anew(trainer)

    def close(self, trainer: Trainer) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open_anew(self, trainer: Trainer) -> None:
        self._writer.close()
        self.before_train(trainer)
