"""The output folder of a run, should it vanish."""

import logging
import os
from pathlib import Path

from ...checkpoint import RunLock
from ...utils.distributed import is_main_process, max_over_ranks, world_size
from ..hook_base import HookBase
from ..registries import HOOK_REGISTRY
from ..trainer import Trainer

# Iterations between looks where several processes must agree on what was seen.
_PERIOD = 20

logger = logging.getLogger(__name__)


@HOOK_REGISTRY.register
class RunFolder(HookBase):
    """Keeps the output folder for this run alone; makes it anew where someone has removed it.

    Then it also has a checkpoint written.

    Args:
        output_dir: Folder of the run.
    """

    def __init__(self, *, output_dir: str) -> None:
        self.folder = Path(output_dir)
        self._lock = RunLock(output_dir)
        self._config: str | None = None
        self._identity: tuple[int, int] | None = None

    def before_train(self, trainer: Trainer) -> None:
        """Lock the folder, and remember which it is."""
        if is_main_process():
            self._lock.acquire()
        path = self.folder / "config.yaml"
        self._config = path.read_text() if path.is_file() else None
        self._identity = _identity(self.folder)

    def after_step(self, trainer: Trainer) -> None:
        """Look after each step; where processes must agree on it, now and then."""
        if world_size() > 1 and (trainer.iter + 1) % _PERIOD:
            return
        gone = is_main_process() and _identity(self.folder) != self._identity
        (gone_anywhere,) = max_over_ranks([gone])
        if gone_anywhere:
            trainer.request_checkpoint()
        if gone:
            self._make_anew()

    def _make_anew(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._config is not None:
            (self.folder / "config.yaml").write_text(self._config)
        self._lock.renew()
        self._identity = _identity(self.folder)
        logger.error(
            "output_dir %s was removed or replaced during the run; its checkpoints are "
            "lost. The run goes on in a new folder of that name, and writes a "
            "checkpoint now",
            self.folder,
        )

    def close(self, trainer: Trainer) -> None:
        """Let others have it."""
        self._lock.release()


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(folder)
    except OSError:
        return None
    return found.st_dev, found.st_ino
