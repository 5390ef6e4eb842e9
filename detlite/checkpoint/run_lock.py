"""One run in one folder: a lock that is gone as soon as its process is."""

import contextlib
import errno
import logging
import os
import socket
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType

from ..errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = ".lock"
_POLL = 0.1  # seconds

logger = logging.getLogger(__name__)


@dataclass
class _Held:
    """A lock that this process holds: closing any descriptor of its file would release it."""

    descriptor: int
    inode: tuple[int, int]
    owner: int
    users: int = 1


_held: dict[Path, _Held] = {}


class RunLock:
    """The right to write into the output folder of a run.

    It is POSIX's record lock: forked data workers do not inherit it, so that it ends with the
    process however that ends. Within a process it may be taken several times.

    Args:
        folder: The output folder, made where it is missing.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = folder
        self.path = Path(folder).absolute() / LOCK_FILE
        self._taken = False

    def acquire(self, wait: float = 10.0) -> None:
        """Take the lock.

        Args:
            wait: Seconds for which another process may still hold it: one that was killed may take
                a moment to end.

        Raises:
            ConfigError: Another run goes on in the folder, or it cannot be written to.
        """
        if self._taken:
            return
        held = _held.get(self.path)
        if held is not None and held.owner == os.getpid() and _inode(self.path) == held.inode:
            held.users += 1
        else:
            if held is not None:  # of a folder that is gone, or of the process that forked this
                del _held[self.path]
                os.close(held.descriptor)
            self._lock(wait)
        self._taken = True

    def renew(self) -> None:
        """Take the lock again where the folder was removed and made anew meanwhile.

        Raises:
            ConfigError: Another run has begun there.
        """
        held = _held.get(self.path)
        if not self._taken or held is None or _inode(self.path) == held.inode:
            return
        self.release()
        self.acquire(wait=0)

    def release(self) -> None:
        """Let others have the folder."""
        if not self._taken:
            return
        self._taken = False
        held = _held.get(self.path)
        if held is None or held.owner != os.getpid():
            return
        held.users -= 1
        if not held.users:
            del _held[self.path]
            with contextlib.suppress(OSError):
                os.ftruncate(held.descriptor, 0)
            os.close(held.descriptor)

    def __enter__(self) -> "RunLock":
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _lock(self, wait: float) -> None:
        descriptor = self._open()
        try:
            if self._try_for(descriptor, wait):
                now = datetime.now().astimezone().isoformat(" ", "seconds")
                text = f"process {os.getpid()} on {socket.gethostname()} since {now}\n"
                with contextlib.suppress(OSError):  # a full disk; the lock holds all the same
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, text.encode(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        status = os.fstat(descriptor)
        _held[self.path] = _Held(descriptor, (status.st_dev, status.st_ino), os.getpid())

    def _open(self) -> int:
        make_output_dir(self.folder)
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        except OSError as error:
            raise _unusable(self.folder, error) from error

    def _try_for(self, descriptor: int, wait: float) -> bool:
        """Lock a file, within some seconds; False where the file system has no locks."""
        deadline = time.monotonic() + wait
        told = False
        while True:
            try:
                if fcntl is None:
                    raise OSError(errno.ENOSYS, "this system has no POSIX locks")
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    logger.warning(
                        "%s cannot be locked (%s); see to it that no other run writes there",
                        self.path.parent,
                        error.strerror or error,
                    )
                    return False
            if time.monotonic() >= deadline:
                raise ConfigError(self._refusal(descriptor))
            if not told:
                logger.info("waiting %g s for the lock of %s", wait, self.path.parent)
                told = True
            time.sleep(_POLL)

    def _refusal(self, descriptor: int) -> str:
        text = ""
        with contextlib.suppress(OSError):
            text = os.pread(descriptor, 500, 0).decode("utf-8", "replace").strip()
        return (
            f"another run goes on in output_dir {self.path.parent}: {text or 'of another process'}"
            "\n    Wait for its end, stop it, or name another folder: output_dir=ANOTHER"
        )


def make_output_dir(folder: str | os.PathLike[str]) -> None:
    """Make the output folder of a run, or see that it is there.

    Raises:
        ConfigError: It cannot be made or written to, or its name is empty or no text.
    """
    try:
        name = os.fspath(folder)
        if not name:
            raise ValueError("its name is empty")
        name.encode()  # the run's own files hold it, in UTF-8
        Path(folder).mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except (OSError, ValueError) as error:
        raise _unusable(folder, error) from error


def _unusable(folder: str | os.PathLike[str], error: Exception) -> ConfigError:
    reason = getattr(error, "strerror", None) or error
    return ConfigError(
        f"output_dir {Path(folder).absolute()} cannot be written to: {reason}; "
        "see who may, or name another one: output_dir=ANOTHER"
    )


def is_locked(folder: str | os.PathLike[str]) -> bool | None:
    """Whether a run goes on in a folder; None where that cannot be told."""
    path = Path(folder).absolute() / LOCK_FILE
    if path in _held:  # opening and closing the file would release it
        return True
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        if fcntl is None:
            return None
        fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return True if error.errno in (errno.EACCES, errno.EAGAIN) else None
    finally:
        os.close(descriptor)
    return False


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
