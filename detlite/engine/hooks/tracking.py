"""What the writers for tracking services share: one run there for one run here."""

import importlib.util
import logging
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...checkpoint import save_atomically
from ...errors import ConfigError
from ...utils.distributed import is_main_process
from ..hook_base import HookBase
from ..run_files import read_config
from ..trainer import Trainer
from .outbox import Outbox
from .run_summary import how_it_ended

logger = logging.getLogger(__name__)


class TrackingWriter(HookBase, ABC):
    """Sends config, metrics and pictures of a run to a service, in the background.

    The service never stops the training and never slows it down: what cannot be sent waits, and at
    the end of the run for ``CLOSE_TIMEOUT`` seconds more. ``metrics.json`` holds all of it anyway.
    A resumed run goes on in the service's run of before, whose id is in checkpoints and, for a run
    that was killed before its first one, in the output folder.

    A subclass overrides ``start``, ``send_metrics``, ``send_pictures`` and ``end``, all of which
    are called in one thread of their own, and registers itself.

    Args:
        output_dir: Folder of the run.

    Raises:
        ConfigError: The package of the service is not installed.
    """

    PACKAGE: ClassVar[str]
    """The module to import."""
    INSTALL: ClassVar[str]
    """What pip calls it."""
    SERVICE: ClassVar[str]
    """What people call it."""
    CLOSE_TIMEOUT = 60.0

    def __init__(self, *, output_dir: str) -> None:
        if importlib.util.find_spec(self.PACKAGE) is None:
            raise ConfigError(
                f"hook '{type(self).__name__}' needs the package {self.INSTALL}, which is not "
                f"installed; `pip install {self.INSTALL}` brings it, or take the hook out of "
                "train.hooks"
            )
        self.folder = Path(output_dir)
        self.run_id: str | None = None
        self._outbox: Outbox | None = None

    # ---- what a service overrides ---------------------------------------------------------

    @abstractmethod
    def start(self, config: dict[str, Any]) -> None:
        """Begin a run, or go on with ``run_id``; ``keep_run_id`` if the service makes it."""

    @abstractmethod
    def send_metrics(self, values: dict[str, float], iteration: int) -> None:
        """Send the values of an iteration."""

    @abstractmethod
    def send_pictures(self, pictures: dict[str, np.ndarray], iteration: int) -> None:
        """Send pictures (H, W, 3) uint8 RGB by name."""

    @abstractmethod
    def end(self, status: str) -> None:
        """Say how the run ended: "done", "failed", "stopped early", ..."""

    def is_hopeless(self, error: Exception) -> bool:
        """Whether an error would come again at every attempt."""
        return isinstance(error, TypeError | ValueError | ImportError)

    # ---- the hook -------------------------------------------------------------------------

    def before_train(self, trainer: Trainer) -> None:
        """Begin, or go on with the run of before."""
        if not is_main_process():
            return
        if self.run_id is None and self._id_file.is_file():
            self.run_id = self._id_file.read_text().strip() or None
        config = read_config(self.folder)
        self._outbox = Outbox(self.SERVICE, self.is_hopeless)
        self._outbox.open(lambda: self.start(config))

    def after_step(self, trainer: Trainer) -> None:
        """Send a summary where one is due, and pictures where there are new ones."""
        if self._outbox is None:
            return
        iteration = trainer.iter
        if trainer.summary is not None:
            values = dict(trainer.summary)
            self._outbox.put(lambda: self.send_metrics(values, iteration))
        # Pictures are large: none wait for a server that is away.
        if trainer.pictures and not self._outbox.is_failing:
            pictures = dict(trainer.pictures)
            self._outbox.put(lambda: self.send_pictures(pictures, iteration))

    def close(self, trainer: Trainer) -> None:
        """End the run there."""
        if self._outbox is None:
            return
        outbox, self._outbox = self._outbox, None
        status, _ = how_it_ended(trainer)
        outbox.put(lambda: self.end(status))
        lost = outbox.close(self.CLOSE_TIMEOUT)
        if lost:
            logger.warning(
                "%s did not get the last %d messages of this run; metrics.json holds its values",
                self.SERVICE,
                lost,
            )

    def state_dict(self) -> dict[str, Any]:
        """The id of the service's run."""
        return {"run_id": self.run_id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with it."""
        if self._outbox is None:
            self.run_id = state["run_id"]

    def keep_run_id(self, run_id: str) -> None:
        """Remember the service's run, also if this process is killed now."""
        self.run_id = run_id
        try:
            save_atomically(run_id + "\n", self._id_file)
        except OSError as error:
            logger.warning("%s cannot be written: %s", self._id_file, error)

    @property
    def _id_file(self) -> Path:
        return self.folder / f"{self.PACKAGE}_run_id.txt"
