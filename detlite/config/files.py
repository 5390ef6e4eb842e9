"""Config files as text: only regular files, of a limited size, in UTF-8."""

import difflib
import os
import stat
from pathlib import Path

from ..errors import ConfigError, shorten
from .tree import MAX_CHARACTERS

_SHIPPED = "detlite://"


def config_path(name: str | os.PathLike[str], folder: Path) -> Path:
    """Where a config is: relative to a folder, or ``detlite://...`` of those that detlite ships."""
    text = os.fspath(name)
    if not text.startswith(_SHIPPED):
        return folder / text
    package = Path(__file__).parents[1]
    # A wheel has them within the package, a checkout beside it.
    configs = package / "configs"
    if not configs.is_dir():
        configs = package.parent / "configs"
    return configs / text.removeprefix(_SHIPPED)


def read_text(path: Path, named_by: str) -> str:
    """Read a config file.

    Args:
        path: A regular file; a pipe or a device could wait, or send bytes, for ever.
        named_by: What names it, for messages.

    Raises:
        ConfigError: It cannot be read, or is too large.
    """
    shown = shorten(str(path), 300)
    try:
        # Without O_NONBLOCK opening a pipe waits for somebody to write.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"
                raise ConfigError(f"{named_by}: {shown} is {kind}, not a file with a config")
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read(MAX_CHARACTERS + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise ConfigError(f"{named_by}: there is no file {shown}{_neighbors(path)}") from None
    except (OSError, ValueError) as error:  # a path with a NUL is a ValueError
        if isinstance(error, ConfigError):
            raise
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"{named_by}: cannot read {shown}: {why}") from None
    if len(content) > MAX_CHARACTERS:
        raise ConfigError(
            f"{named_by}: {shown} has more than {MAX_CHARACTERS:,} bytes, too many for a config"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{named_by}: {shown}:{line} is not UTF-8: {error.reason} "
            f"(0x{content[error.start]:02x}); save the file as UTF-8"
        ) from None


def _neighbors(path: Path) -> str:
    """The configs beside a file that is missing, the nearest names first."""
    try:
        names = sorted(p.name for p in path.parent.glob("*.y*ml"))
    except OSError:
        return ""
    if len(names) > 10:
        names = difflib.get_close_matches(path.name, names, n=10, cutoff=0.0)
    return f"; in that folder: {', '.join(shorten(name) for name in names)}" if names else ""
