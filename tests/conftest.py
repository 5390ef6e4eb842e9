"""What all tests share."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def datasets_dir() -> Path:
    """The folder of the real data; tests that use it are marked ``datasets``."""
    root = os.environ.get("DETLITE_DATASETS")
    if not root or not Path(root).is_dir():
        pytest.skip(f"needs the real data: DETLITE_DATASETS is {root!r}, which is not a folder")
    return Path(root)


@pytest.fixture(scope="session")
def cases_dir(datasets_dir):
    """Small inputs that once failed, which lie beside the real data."""
    return datasets_dir.parent / "cases"


@pytest.fixture
def class_folders(tmp_path):
    """Write images of plain colours into class folders, as {path: (height, width)}; their top."""

    def write(files, name="photos"):
        folder = tmp_path / name
        for i, (path, size) in enumerate(files.items()):
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.full((*size, 3), 40 * i % 256, np.uint8)
            Image.fromarray(pixels).save(file)
        return folder

    return write
