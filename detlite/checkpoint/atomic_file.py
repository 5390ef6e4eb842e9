"""Files that are whole or as they were before, whatever happens while they are written."""

import contextlib
import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import torch

# torch.save imports it late: a worker that is forked at that moment could never import it.
import torch.utils.serialization.config

from .checksum import trailer

# Of files that are being written.
_descriptors: set[int] = set()


def save_atomically(content: Any, path: str | os.PathLike[str], *, checksum: bool = False) -> None:
    """Write a file with ``torch.save``, or text or bytes, so that it is whole or as it was before.

    It is written under another name in the same folder, forced to the disk, then renamed. The
    folder is made where it is missing, also when it is removed meanwhile.

    Args:
        content: What the file shall hold.
        path: The file.
        checksum: Whether its SHA-256 follows the content, see ``verify_checksum``.

    Raises:
        OSError: It cannot be written; nothing is left of the attempt.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _save(content, path, checksum)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        _save(content, path, checksum)


def _save(content: Any, path: Path, checksum: bool) -> None:
    # Not by tempfile: its files are for their owner alone, and the umask that would tell the usual
    # rights can only be read by changing it for all threads.
    temporary = path.parent / f".{path.name}.{os.urandom(4).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
    flags |= getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(temporary, flags, 0o666)
        _descriptors.add(descriptor)
        try:
            _write(content, _Sink(descriptor), checksum)
            os.fsync(descriptor)
        finally:
            # In this order: closed, the number may at once be that of another file.
            _descriptors.discard(descriptor)
            os.close(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def _write(content: Any, sink: "_Sink", checksum: bool) -> None:
    if isinstance(content, str | bytes):
        sink.write(content.encode() if isinstance(content, str) else content)
    else:
        torch.save(content, sink)  # type: ignore[arg-type]
    if checksum:
        sink.write(trailer(sink.digest.hexdigest()))
    if sink.error is not None:
        raise sink.error


class _Sink:
    """What ``torch.save`` writes to: straight to the system, with no buffer that a fork doubles.

    Attributes:
        digest: The SHA-256 of what was written.
        error: The first failure. It is kept, since an error within ``torch.save`` comes out of it
            as another one, about positions in a file.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.digest = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        rest = memoryview(data)
        count = rest.nbytes
        if self.error is None:
            self.digest.update(rest)
            try:
                while rest.nbytes:
                    rest = rest[os.write(self.descriptor, rest) :]
            except OSError as error:
                self.error = error
        return count

    def flush(self) -> None:
        pass


def _sync_folder(folder: Path) -> None:
    """Force the new name of a file to the disk."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return  # other systems than Linux, and folders that may be written but not listed
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Many a network file system cannot.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def _close_in_child() -> None:
    # A data worker that is forked meanwhile would hold the space of a removed file while it lives.
    for descriptor in _descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _descriptors.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
