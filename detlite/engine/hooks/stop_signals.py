"""What the signals of schedulers and users do to a run."""

import logging
import os
import signal
import threading
import time
from types import FrameType
from typing import Any

from ...utils.distributed import max_over_ranks
from ...utils.stopping import STOP
from ..hook_base import HookBase
from ..registries import HOOK_REGISTRY
from ..trainer import Trainer

logger = logging.getLogger(__name__)

_STOP = (signal.SIGTERM, signal.SIGINT)
# torchrun passes a Ctrl-C on to processes that have had it from the terminal already.
_SECOND_AFTER = 2.0


@HOOK_REGISTRY.register
class StopSignals(HookBase):
    """SIGTERM and SIGINT end a run after the step, with a checkpoint; SIGUSR1 only writes one.

    A second Ctrl-C ends it at once, and loses what came after the last checkpoint. Of several
    processes it is enough that one gets the signal: they agree on it after each step. A single
    process that waits for a batch does not wait any longer, and the last step is the one before.
    An evaluation ends after its present batch, and the resumed run does it again.
    """

    def __init__(self) -> None:
        self._stop = self._save = 0
        self._stop_time = 0.0
        self._previous: dict[int, Any] = {}

    def before_train(self, trainer: Trainer) -> None:
        """Take over the signals, where Python lets us."""
        if threading.current_thread() is not threading.main_thread():
            return
        STOP.asked = False
        for number in _STOP:
            self._previous[number] = signal.signal(number, self._on_stop)
        if hasattr(signal, "SIGUSR1"):  # Windows has none
            self._previous[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, self._on_save)

    def after_step(self, trainer: Trainer) -> None:
        """Do what the signals since the last step ask for."""
        stop, save = max_over_ranks([self._stop, self._save])
        self._save = 0
        if save:
            logger.info("SIGUSR1: writing a checkpoint")
            trainer.request_checkpoint()
        if stop:
            name = signal.Signals(stop).name
            logger.info("%s: stopping after iteration %d, with a checkpoint", name, trainer.iter)
            trainer.request_stop("signal")

    def after_interruption(self, trainer: Trainer) -> None:
        """Say why the run ends here."""
        (stop,) = max_over_ranks([self._stop])
        name = signal.Signals(stop).name
        where = "while waiting for data"
        if trainer.unfinished_hook is not None:
            where = f"in {trainer.unfinished_hook.partition('.')[0]}, which --resume repeats"
        logger.info("%s: stopping %s, after iteration %d", name, where, trainer.iter)

    def close(self, trainer: Trainer) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()
        STOP.asked = False

    def _on_stop(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if number == signal.SIGINT and self._stop and now - self._stop_time > _SECOND_AFTER:
            raise KeyboardInterrupt
        if not self._stop:
            # Not the logger: it may be writing at this very moment.
            os.write(2, b"\nstopping after this step; Ctrl-C again stops at once\n")
            self._stop, self._stop_time = number, now
        STOP.ask()

    def _on_save(self, number: int, _: FrameType | None) -> None:
        self._save = 1
