"""Kill -9 at any moment leaves a good checkpoint: the last complete one, or a newer one."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "kill_while_writing.py"


@pytest.fixture
def memory(tmp_path):
    """A folder in memory, where there is one: a kill leaves the same there, only sooner."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield folder


def run(folder, kills):
    process = subprocess.run(
        [sys.executable, SCRIPT, folder, str(kills)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    assert "passed over" not in process.stderr
    seen = json.loads(process.stdout.splitlines()[-1])
    assert seen["unfinished"] >= kills // 4  # so often was one being written
    assert seen["iterations"] > 0


def test_kills_and_an_error_lose_no_checkpoint_that_was_complete(memory):
    run(memory, 12)


@pytest.mark.slow
def test_kills_lose_none_on_a_disk(tmp_path):
    run(tmp_path, 40)
