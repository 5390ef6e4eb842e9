"""Pictures as files."""

from pathlib import Path

import cv2
import numpy as np


def write_picture(path: str | Path, picture: np.ndarray) -> None:
    """Write a picture, (H, W, 3) uint8 RGB; the extension says the format, the folder is made.

    The name may hold any bytes, as ``os.fsdecode`` writes them.

    Raises:
        OSError: The file cannot be written, or its format cannot hold the picture.
    """
    path = Path(path)
    # Not imwrite, which needs a name in UTF-8 and ends the process at another.
    try:
        done, content = cv2.imencode(path.suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    except cv2.error as error:
        raise OSError(f"cannot write the picture {path}: {error.err or error}") from None
    if not done:
        height, width = picture.shape[:2]
        raise OSError(f"cannot write the picture {path}: of {width} x {height} pixels")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.tobytes())
