"""The checksum at the end of a checkpoint: a flipped bit or a cut is told from a good file.

The last 81 bytes of the file are a line break, ``detlite-sha256:``, the SHA-256 of all bytes before
it in hexadecimal, and a line break. What reads files of ``torch.save`` passes over them.
"""

import hashlib
import io
import os
import re
import stat

from ..errors import CheckpointError

_TRAILER = re.compile(rb"\ndetlite-sha256:([0-9a-f]{64})\n")
TRAILER_SIZE = 81
_CHUNK = 1 << 20


def trailer(digest: str) -> bytes:
    """What follows a content with this SHA-256, in hexadecimal."""
    return f"\ndetlite-sha256:{digest}\n".encode()


def verify_checksum(path: str | os.PathLike[str], name: str) -> bool:
    """Whether a file ends in a checksum, which then is right; False for a file that is not there.

    Args:
        path: The file. What is read here is in the system's cache when it is loaded afterwards.
        name: What the user called it, for the errors.

    Raises:
        CheckpointError: The checksum is wrong, or the file cannot be read to its end.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        file = open(path, "rb", buffering=0)  # noqa: SIM115
    except OSError:
        return False  # whoever loads it tells why
    with file:
        try:
            # By reads, since a bad sector under a mapped file would kill the process.
            size = os.fstat(file.fileno()).st_size
            file.seek(max(size - TRAILER_SIZE, 0))
            match = _TRAILER.fullmatch(file.read(TRAILER_SIZE))
            if match is None:
                return False
            file.seek(0)
            found = _sha256(file, size - TRAILER_SIZE)
        except OSError as error:
            raise CheckpointError(
                f"cannot read the checkpoint {name}: {error.strerror or error}; the disk or the "
                "connection to it may be broken"
            ) from error
    expected = match[1].decode()
    if found != expected:
        raise CheckpointError(
            f"the checkpoint {name} is damaged: its checksum is {found[:12]}..., it was "
            f"{expected[:12]}... when the file was written. Take an earlier one, or get it again"
        )
    return True


def missing_checksum(name: str) -> CheckpointError:
    """The error for a checkpoint that was written with a checksum and has none."""
    return CheckpointError(
        f"the checkpoint {name} is damaged: its checksum is missing, so its end is cut off or "
        "changed. Take an earlier one, or get it again. If a program of yours has saved it anew: "
        "leave out its 'version' there"
    )


def _sha256(file: io.FileIO, size: int) -> str:
    digest = hashlib.sha256()
    buffer = bytearray(_CHUNK)
    view = memoryview(buffer)
    while size > 0:
        count = file.readinto(view[: min(size, _CHUNK)])
        if not count:
            break  # shorter than a moment ago; the checksum will differ
        digest.update(view[:count])
        size -= count
    return digest.hexdigest()
