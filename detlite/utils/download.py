"""Downloads into iopath's cache: resumed when broken off, kept whole or not at all, checked."""

import datetime
import hashlib
import logging
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

import portalocker
from iopath.common.file_io import HTTPURLHandler, file_lock, get_cache_dir
from tqdm import tqdm

from ..errors import UserError
from .http_request import Answer, TransferError, open_url, proxy_state, without_secrets

RETRY_PAUSES = (1.0, 2.0, 4.0, 8.0)
TIMEOUT = 30.0
_MAX_PAUSE = 60.0
_MAX_NAME = 200

# Their files lie where iopath puts them, so that a cache which detectron2 has filled is used.
_HOSTS_WITHOUT_FOLDER = {
    "dl.fbaipublicfiles.com",
    "download.openmmlab.com",
    "download.pytorch.org",
    "huggingface.co",
}

logger = logging.getLogger(__name__)


class DownloadError(UserError, OSError):
    """A file cannot be downloaded; the message names it, the reason and what to do."""


class URLHandler(HTTPURLHandler):
    """Local copies of ``http://`` and ``https://`` files, each downloaded once.

    Args:
        retry_pauses: Seconds before the second try, the third and so on.
        timeout: Seconds without a byte from the server after which a try has failed.
    """

    def __init__(
        self, *, retry_pauses: Sequence[float] = RETRY_PAUSES, timeout: float = TIMEOUT
    ) -> None:
        super().__init__()
        self.retry_pauses = retry_pauses
        self.timeout = timeout

    def _get_supported_prefixes(self) -> list[str]:
        return ["http://", "https://"]

    def _get_local_path(
        self, path: str, force: bool = False, cache_dir: str | None = None, **kwargs: Any
    ) -> str:
        """The place of the file in the cache; without network if it lies there already."""
        self._check_kwargs(kwargs)
        target = cache_path(path, cache_dir)
        if os.path.isfile(target) and not force:
            return target
        try:
            with file_lock(target):
                # Another process may have brought it while this one waited for the lock.
                if force or not os.path.isfile(target):
                    download(path, target, retry_pauses=self.retry_pauses, timeout=self.timeout)
        except portalocker.LockException as error:
            raise DownloadError(
                f"cannot download {without_secrets(path)}: another process holds the lock "
                f"{target}.lock, or the file system has no locks\n"
                "    Wait for it, or let FVCORE_CACHE name a folder elsewhere."
            ) from error
        except DownloadError:
            raise
        except OSError as error:
            raise DownloadError(
                f"cannot download {without_secrets(path)}: {target} cannot be written: "
                f"{error.strerror or error}\n"
                "    Make room or grant the right, or let FVCORE_CACHE name a folder elsewhere."
            ) from error
        return target


def cache_path(url: str, cache_dir: str | None = None) -> str:
    """Where the file of a URL lies in the cache: its own path below the folder of its host.

    A query chooses one of several files, so it has a folder; only its digest is written, as it may
    hold a token.

    Raises:
        DownloadError: The URL cannot be downloaded from, or names no file.
    """
    parts = _split(url)
    # Characters that a file name cannot have are escaped; ordinary names stay as they are.
    folders = [_short(piece) for piece in quote(parts.path, safe="%+,=@~!$&'()[]/").split("/")]
    name = folders.pop()
    if not name or {".", ".."} & {*folders, name}:
        raise DownloadError(
            f"{without_secrets(url)} names no file; it must end in a file's name, without '..'"
        )
    if parts.query:
        folders.append("query-" + hashlib.sha256(parts.query.encode()).hexdigest()[:12])
    host = parts.netloc.rpartition("@")[2].lower()
    if host not in _HOSTS_WITHOUT_FOLDER:
        folders.insert(0, host.replace(":", "_"))
    return os.path.join(get_cache_dir(cache_dir), *filter(None, folders), name)


def download(url: str, path: str, *, retry_pauses: Sequence[float], timeout: float) -> None:
    """Bring a file; ``path`` comes into being only when it is whole and fits its hash.

    What came before a break lies in ``path + ".part"``; the next try, or the next call, goes on
    from there. The caller holds the lock.

    Args:
        url: ``http://`` or ``https://``.
        path: The file to write; its folder exists.
        retry_pauses: As of ``URLHandler``, as is ``timeout``.

    Raises:
        DownloadError: The server does not give the file, or gives another.
        OSError: The file cannot be written.
    """
    _split(url)
    part = _Part(path)
    for tries, pause in enumerate([*retry_pauses, None], start=1):
        try:
            _transfer(url, part, timeout)
            break
        except TransferError as error:
            if pause is None or not error.transient:
                raise DownloadError(_message(url, error, tries, part)) from error
            pause = max(pause, min(error.retry_after, _MAX_PAUSE))
            logger.warning(
                f"{without_secrets(url)}: {error}; try {tries + 1} follows in {pause:g} s"
            )
            time.sleep(pause)
    _check_hash(url, part)
    os.replace(part.path, path)
    part.remove()
    logger.info(f"downloaded {path} ({_megabytes(os.path.getsize(path))})")


def hash_in_name(url: str) -> str | None:
    """The first digits of the file's SHA-256 that its name tells, as in ``name-0123abcd.pth``.

    torchvision, torch.hub and mmdetection name their files so. detectron2 ends its names in six
    digits (``model_final_bfca0b.pkl``) and documents nowhere what they are; a published copy of
    ``model_final_280758.pkl`` shows that it is not SHA-256. They are not checked.
    """
    stem, _, _ = os.path.basename(urlsplit(url).path).rpartition(".")
    match = re.search(r"-([0-9a-f]{8,64})$", stem)
    return match[1] if match and not _is_date(match[1]) else None


class _Part:
    """The begun file, and a note of the version of the server's file that it belongs to."""

    def __init__(self, path: str) -> None:
        self.path = Path(f"{path}.part")
        self.note = Path(f"{path}.part.version")

    def begun(self) -> tuple[int, str]:
        """Bytes that are here, and their version; 0 where nobody knows what they belong to."""
        try:
            version = self.note.read_text()
            return (self.path.stat().st_size if version else 0), version
        except (OSError, ValueError):
            return 0, ""

    def begin(self, version: str) -> None:
        """Throw away what is here; note the version before the first byte of it comes."""
        self.remove()
        self.path.touch()
        self.note.write_text(version)

    def remove(self) -> None:
        self.note.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


def _transfer(url: str, part: _Part, timeout: float) -> None:
    """One try to bring what is missing."""
    with _answer(url, part, timeout) as answer:
        have = answer.offset
        if have == 0:
            part.begin(answer.version)
        name = os.path.basename(urlsplit(url).path)
        size = "size unknown" if answer.size is None else _megabytes(answer.size)
        again = f", going on at {_megabytes(have)}" if have else ""
        logger.info(f"downloading {without_secrets(url)} ({size}{again})")
        # disable=None: a bar on a terminal, nothing in a log file
        bar = tqdm(
            total=answer.size, initial=have, unit="B", unit_scale=True, desc=name, disable=None
        )
        with bar, part.path.open("ab") as file:
            for chunk in answer.chunks():
                file.write(chunk)
                have += len(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
    if answer.size is not None and have != answer.size:
        raise TransferError(
            f"the transfer broke off at {_megabytes(have)} of {_megabytes(answer.size)}",
            transient=True,
        )
    if have == 0:
        raise TransferError("the server sent an empty file", transient=True)


def _answer(url: str, part: _Part, timeout: float) -> Answer:
    """The server's answer to a request for the rest, or for everything where that fails."""
    have, version = part.begun()
    if have:
        try:
            answer = open_url(url, timeout, offset=have, version=version)
        except TransferError as error:
            # 416: the server's file is no longer than what is here; by then it is another one.
            if error.status != 416:
                raise
        else:
            same = answer.offset == have and answer.version in ("", version)
            if same or answer.offset == 0:
                return answer
            answer.close()
    return open_url(url, timeout)


def _check_hash(url: str, part: _Part) -> None:
    expected = hash_in_name(url)
    if expected is None:
        return
    digest = hashlib.sha256()
    with part.path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    actual = digest.hexdigest()[: len(expected)]
    if actual != expected:
        part.remove()
        raise DownloadError(
            f"{without_secrets(url)} gives another file than its name says: its SHA-256 begins "
            f"with {actual}, not with {expected}; it was thrown away\n"
            "    Try again or another address; or, if you trust the file, download it by hand and "
            "give its path."
        )


def _message(url: str, error: TransferError, tries: int, part: _Part) -> str:
    have, _ = part.begun()
    lines = [f"cannot download {without_secrets(url)}: {error}"]
    if tries > 1:
        lines[0] += f" ({tries} tries)"
    if have:
        lines.append(f"{_megabytes(have)} are kept; another try goes on from there.")
    if error.status not in (404, 410):
        lines.append(f"The server was asked {proxy_state(url)}.")
    lines.append("Check the address, or download the file by hand and give its path instead.")
    return "\n    ".join(lines)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number, a bracket left open
        usable = False
    if not usable:
        # A password with a "/" in it is no proper one; it must not be told all the same.
        shown = without_secrets(re.sub("//.*@", "//", url))
        raise DownloadError(
            f"'{shown}' is no address to download from\n"
            "    It must look like https://host/folder/file.pth; give a local file by its path."
        )
    return parts


def _short(piece: str) -> str:
    """A piece of a URL's path, cut where file systems do not take so long a name."""
    if len(piece) <= _MAX_NAME:
        return piece
    return f"{piece[:100]}_{hashlib.sha256(piece.encode()).hexdigest()[:16]}"


def _is_date(digits: str) -> bool:
    """Whether they are rather a day (20240131) than a hash: one hash in 100 000 looks so."""
    try:
        return datetime.datetime.strptime(digits, "%Y%m%d").year // 100 in (19, 20)
    except ValueError:
        return False


def _megabytes(size: int) -> str:
    return f"{size} bytes" if size < 100_000 else f"{size / 1e6:.1f} MB"
