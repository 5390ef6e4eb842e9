"""Reading text and JSON that other programs wrote, and saying exactly where a file is broken."""

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

from ..errors import DataError


def read_file(path: str | os.PathLike[str], what: str) -> bytes:
    """The content of a file.

    Args:
        path: The file.
        what: What is in it, for the message: "annotations".

    Raises:
        DataError: It is missing, no regular file, or cannot be read.
    """
    try:
        # A pipe would be waited for, and a device such as /dev/zero never ends.
        if not stat.S_ISREG(os.stat(path).st_mode):
            kind = "it is a folder" if os.path.isdir(path) else "it is no regular file"
            raise DataError(f"cannot read the {what} '{path}': {kind}")
        return Path(path).read_bytes()
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or "the memory is too small"
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        reason = str(error)  # a NUL or a lone surrogate in the path
    raise DataError(
        f"cannot read the {what} '{path}': {reason}. "
        "Relative paths lie under $DETLITE_DATASETS (datasets/ if it is not set)"
    )


def decode_text(data: bytes, path: str | os.PathLike[str], what: str) -> str:
    """Text in UTF-8, or in UTF-16 or UTF-32, which a byte-order mark or zero bytes tell.

    Raises:
        DataError: It is in another encoding.
    """
    encoding = json.detect_encoding(data)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = 1 + data.count(b"\n", 0, error.start)
        raise DataError(
            f"the {what} '{path}' are not {encoding.upper()} text: line {line} (byte "
            f"{error.start}) has the byte 0x{data[error.start]:02x}. Save the file as UTF-8"
        ) from None


def read_text(path: str | os.PathLike[str], what: str) -> str:
    """The text of a file; see ``read_file`` and ``decode_text``."""
    return decode_text(read_file(path, what), path, what)


def parse_json(data: bytes, path: str | os.PathLike[str], what: str) -> Any:
    """Parse JSON that a fast parser has refused.

    The standard library's parser is slow, but knows byte-order marks, NaN and lone surrogates, and
    says which line is broken.

    Raises:
        DataError: It is no JSON.
    """
    text = decode_text(data, path, what)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        reason = str(error)
    except ValueError as error:
        # Python refuses integers of more than 4,300 digits, and does not say where they are.
        digits = re.search(r"\d{4301,}", text)
        line = text.count("\n", 0, digits.start()) + 1 if digits else 0
        reason = f"line {line} has a number of {len(digits[0])} digits" if digits else str(error)
    except (RecursionError, MemoryError):
        reason = "it is nested too deeply, or too large"
    raise DataError(f"the {what} '{path}' are not valid JSON: {reason}")


def shown(value: Any, limit: int = 100) -> str:
    """A value as JSON writes it, cut where it is long."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= limit else text[: limit - 3] + "..."
