"""What all tests share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def datasets_dir() -> Path:
    """The folder of the real data; tests that use it are marked ``datasets``."""
    root = os.environ.get("DETLITE_DATASETS")
    if not root or not Path(root).is_dir():
        pytest.skip(f"needs the real data: DETLITE_DATASETS is {root!r}, which is not a folder")
    return Path(root)
