"""The checkpoints of a run: written beside the training, found again after whatever happened."""

import contextlib
import errno
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import CheckpointError
from .atomic_file import save_atomically
from .background import BackgroundThread
from .interop import DETLITE
from .reading import VERSION
from .recovery import (
    LAST_CHECKPOINT,
    checkpoints_of_run,
    files_of_run,
    last_checkpoint,
    leftovers,
    periodic_checkpoints,
    periodic_name,
    read_resumable,
)
from .snapshot import Place, Snapshot, plain_state

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)

logger = logging.getLogger(__name__)


class Checkpointer:
    """The checkpoints of a run, in its output folder.

    Args:
        folder: Where they are.
        keep: How many of the periodic ones stay, the newest; while one is written there is one
            more. What ``save`` writes stays beside them.
        identity: What every checkpoint says of itself: config, class names.

    Attributes:
        failures: How many checkpoints could not be written.
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, keep: int, identity: Mapping[str, Any]
    ) -> None:
        self.folder = Path(folder)
        self.keep = keep
        self.identity = dict(identity)
        self.failures = 0
        self._thread = BackgroundThread()
        self._snapshot = Snapshot()
        self._damaged: set[Path] = set()
        self._has_told_size = False

    def check(self, state: Mapping[str, Any]) -> None:
        """See that a checkpoint can hold a state, without writing one.

        Raises:
            CheckpointError: It cannot; the message says what is in the way.
        """
        plain_state(self._content(state), _as_it_is)

    def save(self, name: str, state: Mapping[str, Any]) -> Path:
        """Write ``<name>.pth``, now.

        Raises:
            CheckpointError: It cannot be written.
        """
        path = self.folder / f"{name}.pth"
        content = plain_state(self._content(state), _as_it_is)
        try:
            save_atomically(content, path, checksum=True)
        except Exception as error:
            self.failures += 1
            raise CheckpointError(
                f"cannot write the checkpoint {path}: {self._reason(error)}; see to the disk and "
                "the rights there"
            ) from error
        return path

    def save_periodic(
        self, iteration: int, state: Mapping[str, Any], *, background: bool = True
    ) -> Path:
        """Write ``model_<iteration>.pth``, name it in ``last_checkpoint``, drop the oldest.

        Args:
            iteration: The last finished one.
            state: Of the run after it. It may change as soon as this returns.
            background: Whether to return at once, with a copy of the state that a thread writes;
                the one before is waited for. What cannot be written is logged and counted then.

        Returns:
            The file.

        Raises:
            CheckpointError: The state holds what a checkpoint cannot, or, not in the background,
                the file cannot be written.
        """
        self.wait()
        path = self.folder / f"{periodic_name(iteration)}.pth"
        content = self._content({**state, "iteration": iteration})
        if background:
            content = self._snapshot.take(content)
            self._thread.start(
                lambda: self._write_or_log(iteration, content, path), f"writing {path}"
            )
            return path
        content = plain_state(content, _as_it_is)
        try:
            self._write(iteration, content, path)
        except Exception as error:
            self.failures += 1
            raise CheckpointError(
                f"{self._failure(iteration, path, error)} if the run ends now; set that right, "
                "then go on with --resume"
            ) from error
        return path

    def wait(self) -> None:
        """Return once nothing is being written any more."""
        self._thread.wait()

    def last(self) -> Path | None:
        """The checkpoint that ``last_checkpoint`` names; None if it names none."""
        return last_checkpoint(self.folder)

    def last_good(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint that a run can go on from, and what it holds.

        A damaged one is passed over, with a warning; None where there is no checkpoint at all.

        Raises:
            CheckpointError: There are some, and none can be used.
        """
        self.wait()
        candidates = periodic_checkpoints(self.folder)[::-1]
        named = self.last()
        if named is not None and named not in [path for _, path in candidates]:
            candidates.append((-1, named))
        problems = []
        for _, path in candidates:
            try:
                content = read_resumable(path)
            except CheckpointError as error:
                problems.append(str(error))
                self._damaged.add(path)
                logger.warning("%s is passed over: %s", path.name, error)
                continue
            self._damaged.discard(path)
            first, newest = content["iteration"] + 1, candidates[0][0]
            if problems and newest >= first:
                logger.warning(
                    "going on from %s; the iterations %d to %d are computed once more",
                    path,
                    first,
                    newest,
                )
            return path, content
        if not problems:
            return None
        told = "\n".join(f"    {problem}" for problem in problems)
        raise CheckpointError(
            f"none of the checkpoints in {self.folder} can be used to go on:\n{told}\n"
            "    Put a good copy there, or begin anew with --overwrite, which removes them."
        )

    def disk_use(self) -> dict[str, int]:
        """The checkpoints in the folder by name, with their sizes in bytes."""
        self.wait()
        sizes = {}
        for path in checkpoints_of_run(self.folder):
            with contextlib.suppress(OSError):
                sizes[path.name] = path.stat().st_size
        return sizes

    def remove_leftovers(self) -> None:
        """Remove what a killed run had begun to write; only for the run that has the folder."""
        self.wait()
        paths = leftovers(self.folder)
        for path in paths:
            _remove(path)
        if paths:
            logger.info("removed %d unfinished files of an earlier run", len(paths))

    def remove_run(self) -> None:
        """Remove the checkpoints and metrics of an earlier run, so that one can begin anew.

        Raises:
            CheckpointError: A file cannot be removed.
        """
        self.wait()
        paths = files_of_run(self.folder)
        for path in paths:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise CheckpointError(
                    f"cannot remove {path} of the earlier run: {error.strerror or error}; remove "
                    "it by hand, or name another folder: output_dir=ANOTHER"
                ) from error
        # The recorded steps that were not finite.
        shutil.rmtree(self.folder / "non_finite", ignore_errors=True)
        self._damaged.clear()
        if paths:
            logger.info("removed %d files of the earlier run in %s", len(paths), self.folder)

    def _content(self, state: Mapping[str, Any]) -> dict[str, Any]:
        return {"format": DETLITE, "version": VERSION, **self.identity, **state}

    def _write(self, iteration: int, content: Mapping[str, Any], path: Path) -> None:
        save_atomically(content, path, checksum=True)
        self._damaged.discard(path)
        save_atomically(path.name, self.folder / LAST_CHECKPOINT)
        # Dropped first: the damaged, and those of later iterations, from before the run went back.
        others = [each for each in periodic_checkpoints(self.folder) if each[1] != path]
        others.sort(key=lambda e: (e[1] not in self._damaged and e[0] < iteration, e[0]))
        for _, old in others[: max(len(others) + 1 - self.keep, 0)]:
            _remove(old)
        logger.info("saved %s", path)
        if not self._has_told_size:
            self._has_told_size = True
            size = path.stat().st_size
            logger.info(
                "a checkpoint takes %s; train.checkpoint_keep=%d, and one more while it is "
                "written, take %s of the disk at most",
                megabytes(size),
                self.keep,
                megabytes((self.keep + 1) * size),
            )

    def _write_or_log(self, iteration: int, content: Mapping[str, Any], path: Path) -> None:
        try:
            self._write(iteration, content, path)
        except Exception as error:
            self.failures += 1
            logger.error(
                "%s if the run ended now. It goes on, and tries again at the next checkpoint",
                self._failure(iteration, path, error),
                exc_info=None if isinstance(error, OSError) else error,
            )

    def _failure(self, iteration: int, path: Path, error: Exception) -> str:
        good = [e for e in periodic_checkpoints(self.folder) if e[1] not in self._damaged]
        good = [e for e in good if e[0] <= iteration]
        told = f"the last good one is {good[-1][1].name}" if good else "there is no good one"
        lost = iteration - (good[-1][0] if good else -1)
        return (
            f"cannot write the checkpoint {path}: {self._reason(error)}; {told}, and "
            f"{lost} iterations would be lost"
        )

    def _reason(self, error: Exception) -> str:
        if not isinstance(error, OSError):
            return f"{type(error).__name__}: {error}"
        if error.errno in _NO_SPACE:
            with contextlib.suppress(OSError):
                free = shutil.disk_usage(self.folder).free / 1e6
                return f"{error.strerror} ({free:.0f} MB are free)"
        return str(error.strerror or error)


def megabytes(size: int) -> str:
    """A number of bytes for people."""
    return f"{size / 1e6:,.1f} MB"


def _as_it_is(tensor: Tensor, place: Place) -> Tensor:
    return tensor


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("cannot remove %s: %s", path, error.strerror or error)
