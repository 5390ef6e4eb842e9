"""What all tests share."""

import os
import zlib
from pathlib import Path

# Parallel test processes share the cores. Before torch is imported anywhere, and for the
# processes that tests start as well.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from PIL import Image


def pytest_addoption(parser):
    """``--part 2/3`` runs the second third of the selected tests, chosen by their names."""
    parser.addoption("--part", default="1/1", metavar="K/N", help="run part K of N of the tests")


def pytest_collection_modifyitems(config, items):
    """Leave out the tests of other parts."""
    part, parts = map(int, config.getoption("part").split("/"))
    if parts > 1:
        chosen = [i for i in items if zlib.crc32(i.nodeid.encode()) % parts == part - 1]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen


@pytest.fixture(scope="session")
def datasets_dir() -> Path:
    """The folder of the real data; tests that use it are marked ``datasets``."""
    root = os.environ.get("DETLITE_DATASETS")
    if not root or not Path(root).is_dir():
        pytest.skip(f"needs the real data: DETLITE_DATASETS is {root!r}, which is not a folder")
    return Path(root)


@pytest.fixture(scope="session")
def cases_dir(datasets_dir):
    """Small inputs that failed for users."""
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
