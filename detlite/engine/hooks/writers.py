"""Where the summaries of metrics go: terminal, TensorBoard. Writers stand behind MetricSummary."""

import datetime
import logging
import math
from pathlib import Path
from typing import Any

from ..hook_base import HookBase
from ..registries import HOOK_REGISTRY
from ..trainer import Trainer

logger = logging.getLogger(__name__)


@HOOK_REGISTRY.register
class ConsoleWriter(HookBase):
    """A line of the log: time left, iteration, losses, seconds a step, learning rate, memory.

    What went wrong in the data and was mended, and steps left out, are counted in it.
    """

    def after_step(self, trainer: Trainer) -> None:
        """Write a line where a summary is due."""
        summary = trainer.summary
        if summary is None:
            return
        seconds = summary.get("time", 0.0)
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
