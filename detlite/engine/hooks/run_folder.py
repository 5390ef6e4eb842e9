"""The output folder of a run: made when it begins, and anew should it vanish."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

from ...checkpoint import RunLock, save_atomically
from ...utils.distributed import is_main_process, max_over_ranks, world_size
from ...utils.logger import add_log_file
from ..hook_base import HookBase
from ..registries import HOOK_REGISTRY
from ..run_files import CONFIG
from ..trainer import Trainer

# Iterations between looks where several processes must agree on what was seen.
_PERIOD = 20

logger = logging.getLogger(__name__)


@HOOK_REGISTRY.register
class RunFolder(HookBase):
    """Makes the output folder when the run begins, and keeps it for this run alone.

    It writes the resolved config there, ``config.yaml``, and has the log written, ``log.txt``,
    with what was logged while the run was built. Where someone removes the folder during the run,
    it makes it anew and has a checkpoint written.

    Args:
        output_dir: Folder of the run.
        config_yaml: The resolved config.
        log_records: What was logged before; emptied when it is written.
    """

    def __init__(
        self, *, output_dir: str, config_yaml: str, log_records: list[logging.LogRecord]
    ) -> None:
        self.folder = Path(output_dir)
        self._config_yaml = config_yaml
        self._log_records = log_records
        self._lock = RunLock(output_dir)
        self._end_log: Callable[[], None] = _do_nothing
        self._identity: tuple[int, int] | None = None

    def before_train(self, trainer: Trainer) -> None:
        """Lock the folder, begin its files, and remember which it is."""
        if is_main_process():
            self._lock.acquire()
            save_atomically(self._config_yaml, self.folder / CONFIG)
            self._end_log = add_log_file(self.folder, self._log_records)
        self._log_records.clear()
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
        save_atomically(self._config_yaml, self.folder / CONFIG)
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
        end_log, self._end_log = self._end_log, _do_nothing
        end_log()
        self._lock.release()


def _do_nothing() -> None:
    pass


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(folder)
    except OSError:
        return None
    return found.st_dev, found.st_ino
