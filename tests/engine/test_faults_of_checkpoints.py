"""What may befall the checkpoints of a run, end to end: damage, and a disk that is full."""

import errno
import os
import pathlib
import shutil
import signal
import subprocess

import pytest

from detlite.checkpoint import atomic_file
from detlite.config.loader import import_component
from detlite.engine.hooks import PeriodicCheckpointer

runs = import_component(str(pathlib.Path(__file__).with_name("fault_runs.py")), "the tests")
train, checkpoints, whole = runs.run_train_net, runs.checkpoints, runs.whole


# ---- damaged checkpoints ----------------------------------------------------------------------


def cut(data):
    return data[: len(data) // 2]


def cut_the_last_byte(data):
    return data[:-1]


def empty(data):
    return b""


def flip_a_bit(data):
    at = len(data) // 3
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        flip_a_bit,
        pytest.param(cut_the_last_byte, marks=pytest.mark.slow),
        pytest.param(empty, marks=pytest.mark.slow),
    ],
)
def test_a_damaged_checkpoint_is_passed_over(damage, whole, tmp_path, capsys):
    assert train(tmp_path / "run", actions={3: runs.send(signal.SIGTERM)}) == 75
    newest = tmp_path / "run" / "model_0000003.pth"
    newest.write_bytes(damage(newest.read_bytes()))
    assert train(tmp_path / "run", "--resume") == 0
    told = capsys.readouterr().err
    assert "model_0000003.pth is passed over" in told
    assert "going on at iteration 2" in told
    assert runs.differences(whole, tmp_path / "run") == []


def test_a_run_without_a_good_checkpoint_does_not_begin_anew_unasked(tmp_path, capsys):
    assert train(tmp_path / "run", actions={3: runs.send(signal.SIGTERM)}) == 75
    for path in (tmp_path / "run").glob("model_0*.pth"):
        path.write_bytes(cut(path.read_bytes()))
    assert train(tmp_path / "run", "--resume") == 2
    assert "none of the checkpoints" in capsys.readouterr().err


# ---- a full disk ------------------------------------------------------------------------------


def let_checkpoint_be_written(trainer):
    """So that the disk is full for a certain checkpoint: they are written in the background."""
    for hook in trainer.hooks:
        if isinstance(hook, PeriodicCheckpointer):
            hook.checkpointer.wait()


class FullDisk:
    """Checkpoints cannot be written while it is full."""

    def __init__(self, monkeypatch):
        self.is_full = False
        write = os.write

        def fail_or_write(descriptor, data):
            if self.is_full and descriptor in atomic_file._descriptors:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(descriptor, data)

        monkeypatch.setattr(os, "write", fail_or_write)

    def fill(self, trainer):
        let_checkpoint_be_written(trainer)
        self.is_full = True

    def free(self, trainer):
        let_checkpoint_be_written(trainer)
        self.is_full = False


def test_training_outlives_a_full_disk(whole, tmp_path, capsys, monkeypatch):
    disk = FullDisk(monkeypatch)
    assert train(tmp_path / "run", actions={2: disk.fill, 4: disk.free}) == 0
    told = capsys.readouterr().err
    assert "cannot write the checkpoint" in told
    assert "No space left on device" in told
    assert "the last good one is model_0000001.pth, and 2 iterations would be lost" in told
    assert checkpoints(tmp_path / "run") == [1, 5]
    assert runs.differences(whole, tmp_path / "run") == []


def test_a_stop_without_a_checkpoint_is_not_told_as_one_with(whole, tmp_path, capsys, monkeypatch):
    disk = FullDisk(monkeypatch)

    def fill_and_stop(trainer):
        disk.fill(trainer)
        runs.send(signal.SIGTERM)(trainer)

    assert train(tmp_path / "run", actions={4: fill_and_stop}) == 2
    told = capsys.readouterr().err
    assert "cannot write the checkpoint" in told
    assert "stopped after iteration" not in told
    disk.is_full = False
    assert train(tmp_path / "run", "--resume") == 0
    assert runs.differences(whole, tmp_path / "run") == []


def write_for_ever(file):
    while True:
        file.write(bytes(1 << 12))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 24 MB; needs the right to mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "detlite-test", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_training_outlives_a_disk_that_is_really_full(small_disk, whole, capsys):
    # Everything fails now: checkpoints, metrics, the log, the summary.
    filler = small_disk / "filler"

    def fill(trainer):
        let_checkpoint_be_written(trainer)
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            write_for_ever(file)

    overrides = ["train.checkpoint_keep=1", "train.ema={decay: 0.0}", "test.eval_period=100"]

    def free(trainer):
        let_checkpoint_be_written(trainer)
        filler.unlink()

    actions = {2: fill, 4: free}
    assert train(small_disk / "run", *overrides, actions=actions) == 0
    told = capsys.readouterr().err
    assert "cannot write the checkpoint" in told
    assert "No space left on device" in told
    assert checkpoints(small_disk / "run") == [5]
    assert [entry["iteration"] for entry in runs.metrics(small_disk / "run")] == list(range(6))
