"""Pictures as files."""

from pathlib import Path

import cv2
import numpy as np


def write_picture(path: str | Path, picture: np.ndarray) -> None:
    """Write a picture, (H, W, 3) uint8 RGB; the extension says the format, the folder is made.

    Raises:
        OSError: The file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
        raise OSError(f"cannot write the picture {path}")
