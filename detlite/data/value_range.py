"""From pixels of more than 8 bits a channel to 8: which values are black and white."""

import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np

# Of 16 bits a channel; values that span less are shown too dark, or without contrast.
_NARROW_SPAN = 1 << 14

_warned: list[bool] = []

logger = logging.getLogger(__name__)


def to_bytes(values: np.ndarray, value_range: tuple[float, float] | None) -> np.ndarray:
    """Scale values of any shape to uint8.

    Args:
        values: Integers or floating point numbers; what is not a number becomes 0.
        value_range: The values that become 0 and 255; None: 0 and 65535.
    """
    if value_range is None:
        return (values >> 8).astype(np.uint8)
    if values.dtype.kind == "u":
        table = _scaled(np.arange(1 << 16, dtype=np.float64), *value_range)
        return table[values]
    return _scaled(values.astype(np.float64), *value_range)


def warn_if_narrow(path: str | Path, parts: Iterable[np.ndarray]) -> None:
    """Warn of the first image in this process that uses little of its 16 bits a channel.

    The other images of its data set are probably alike.

    Args:
        path: The file.
        parts: Of its pixels, uint16.
    """
    if _warned:
        return
    ends = [(int(part.min()), int(part.max())) for part in parts]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    if not 0 < high - low < _NARROW_SPAN:
        return
    _warned.append(True)
    brightest = (1 << max(high.bit_length(), 8)) - 1
    guess = [0, brightest] if high - low > brightest / 4 else [low, high]
    logger.warning(
        "image file '%s' has 16 bits a channel, but its values only reach from %d to %d; scaled by "
        "65535 it has %d of 256 levels. Set data.image_range to the values that are black and "
        "white in your data, such as data.image_range=%s",
        path,
        low,
        high,
        (high >> 8) - (low >> 8) + 1,
        str(guess).replace(" ", ""),
    )


def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    scaled = np.nan_to_num((values.clip(low, high) - low) * (255 / (high - low)))
    return scaled.round().astype(np.uint8)
