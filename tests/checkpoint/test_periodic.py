"""The checkpoints of a run are written beside the training, kept in order, and found again."""

import errno
import logging
import os
import shutil
import subprocess
import threading

import pytest
import torch

from detlite.checkpoint import Checkpointer, atomic_file
from detlite.errors import CheckpointError

STATE = {"model": {"w": torch.arange(500.0)}, "optimizer": {"state": {}}}


def checkpointer(folder, keep=2):
    return Checkpointer(folder, keep=keep, identity={"config": "seed: 0\n", "class_names": ["a"]})


def write(folder, *iterations, keep=2, state=STATE):
    writer = checkpointer(folder, keep)
    for iteration in iterations:
        writer.save_periodic(iteration, state)
    writer.wait()
    return writer


def names(folder, pattern="model_*.pth"):
    return sorted(path.name for path in folder.glob(pattern))


@pytest.fixture
def disk(monkeypatch):
    """The disk, which can be made to wait (``disk.go.clear()``) or to fail (``disk.error``)."""

    class Disk:
        go = threading.Event()
        reached = threading.Event()
        error = None

    real = os.write

    def write(descriptor, data):
        if descriptor in atomic_file._descriptors:
            Disk.reached.set()
            assert Disk.go.wait(20)
            if Disk.error:
                raise OSError(Disk.error, os.strerror(Disk.error))
        return real(descriptor, data)

    Disk.go.set()
    monkeypatch.setattr(atomic_file.os, "write", write)
    yield Disk
    Disk.go.set()


@pytest.mark.parametrize("background", [True, False])
def test_the_newest_are_kept_and_the_last_is_named(tmp_path, background):
    writer = checkpointer(tmp_path)
    writer.save("model_best", {"model": {}})
    for iteration in (9, 19, 29):
        path = writer.save_periodic(iteration, STATE, background=background)
    writer.wait()
    assert names(tmp_path) == ["model_0000019.pth", "model_0000029.pth", "model_best.pth"]
    assert writer.last() == path == tmp_path / "model_0000029.pth"
    path, content = writer.last_good()
    assert (path, content["iteration"]) == (writer.last(), 29)
    assert (content["config"], content["class_names"]) == ("seed: 0\n", ["a"])
    assert writer.failures == 0


def test_what_checkpoints_take_of_the_disk_is_logged_once(tmp_path, caplog):
    caplog.set_level(logging.INFO, "detlite")
    writer = write(tmp_path, 9, 19, 29, keep=2, state={**STATE, "more": torch.zeros(50_000)})
    size = (tmp_path / "model_0000029.pth").stat().st_size
    (line,) = [message for message in caplog.messages if "of the disk" in message]
    assert f"takes {size / 1e6:.1f} MB" in line
    assert f"take {3 * size / 1e6:.1f} MB" in line
    writer.save("model_final", {"model": {}})
    assert [*writer.disk_use()] == ["model_0000019.pth", "model_0000029.pth", "model_final.pth"]
    assert writer.disk_use()["model_0000029.pth"] == size


def test_training_goes_on_while_a_slow_disk_takes_the_state_as_it_was(tmp_path, disk):
    weight, hooks = torch.zeros(100), {"Best.1": {"best": 1.0}}
    writer = checkpointer(tmp_path)
    disk.go.clear()
    writer.save_periodic(4, {"model": {"w": weight}, "optimizer": {}, "hooks": hooks})
    assert disk.reached.wait(20)
    weight += 1  # the next iterations
    hooks["Best.1"]["best"] = 2.0
    assert names(tmp_path) == []
    disk.go.set()
    writer.wait()
    _, content = writer.last_good()
    assert content["model"]["w"].tolist() == [0] * 100
    assert content["hooks"] == {"Best.1": {"best": 1.0}}


def test_at_most_one_checkpoint_is_behind(tmp_path, disk):
    writer = checkpointer(tmp_path, keep=5)
    disk.go.clear()
    writer.save_periodic(4, STATE)
    second = threading.Thread(target=writer.save_periodic, args=(9, STATE))
    second.start()
    second.join(0.2)
    assert second.is_alive()
    disk.go.set()
    second.join(20)
    assert not second.is_alive()
    writer.wait()
    assert names(tmp_path) == ["model_0000004.pth", "model_0000009.pth"]


def test_waiting_long_is_told(tmp_path, disk, monkeypatch, caplog):
    monkeypatch.setattr("detlite.checkpoint.background._PATIENCE", 0.05)
    writer = checkpointer(tmp_path)
    disk.go.clear()
    writer.save_periodic(4, STATE)
    threading.Timer(0.3, disk.go.set).start()
    writer.wait()
    assert "still waiting: writing" in caplog.text
    assert "model_0000004.pth takes" in caplog.text


def test_the_thread_has_a_lower_priority_and_the_training_its_own(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "detlite.checkpoint.checkpointer.save_atomically",
        lambda *_, **__: seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id())),
    )
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    write(tmp_path, 1)
    assert min(seen) == min(own + 10, 19)
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == own


def test_a_failed_write_is_told_counted_and_tried_again(tmp_path, disk, caplog):
    caplog.set_level(logging.INFO, logger="detlite")
    writer = write(tmp_path, 9)
    disk.error = errno.ENOSPC
    writer.save_periodic(19, STATE)
    writer.wait()
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    told = record.getMessage()
    assert "model_0000019.pth: No space left on device" in told
    assert "MB are free" in told
    assert "the last good one is model_0000009.pth, and 10 iterations would be lost" in told
    assert writer.failures == 1
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_0000009.pth"]
    assert writer.last().name == "model_0000009.pth"
    disk.error = None
    writer.save_periodic(29, STATE)
    assert writer.last_good()[1]["iteration"] == 29
    assert writer.failures == 1


def test_what_last_checkpoint_names_is_complete(tmp_path, monkeypatch):
    real = atomic_file.save_atomically
    named = []

    def observe(content, path, **options):
        pointer = tmp_path / "last_checkpoint"
        named.append(pointer.read_text() if pointer.exists() else None)
        real(content, path, **options)

    monkeypatch.setattr("detlite.checkpoint.checkpointer.save_atomically", observe)
    write(tmp_path, 9, 19)
    # Before a checkpoint and before its name are written: the one before.
    assert named == [None, None, "model_0000009.pth", "model_0000009.pth"]


def test_the_first_failure_says_that_there_is_none(tmp_path, disk, caplog):
    disk.error = errno.EIO
    write(tmp_path, 9)
    assert "Input/output error; there is no good one, and 10 iterations would be lost" in (
        caplog.text
    )


def test_a_write_that_must_succeed_raises(tmp_path, disk):
    writer = write(tmp_path, 9)
    disk.error = errno.EDQUOT
    with pytest.raises(CheckpointError, match=r"0000019.pth: Disk quota.*0000009.*10 iterations"):
        writer.save_periodic(19, STATE, background=False)
    with pytest.raises(CheckpointError, match=r"cannot write .*model_final.pth: Disk quota"):
        writer.save("model_final", STATE)
    assert writer.failures == 2
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_0000009.pth"]


def test_a_state_that_no_checkpoint_can_hold_is_told_at_once(tmp_path):
    writer = checkpointer(tmp_path)
    state = {**STATE, "hooks": {"Own.1": {"x": object()}}}
    for save in (writer.save_periodic, lambda _, state: writer.save("model_final", state)):
        with pytest.raises(CheckpointError, match=r"cannot hold hooks > Own\.1 > x"):
            save(1, state)
    with pytest.raises(CheckpointError, match=r"cannot hold hooks > Own\.1 > x"):
        writer.check(state)
    writer.check(STATE)
    assert os.listdir(tmp_path) == []


def test_a_real_full_disk_costs_one_checkpoint_not_the_run(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot mount a small disk: {getattr(error, 'stderr', error)}")
    try:
        state = {"model": {"w": torch.zeros(10_000)}, "optimizer": {}}  # 40 kB
        writer = write(folder, 9, 19, state=state)
        (folder / "others").write_bytes(bytes(150_000))
        write_state = writer.save_periodic
        write_state(29, state)
        writer.wait()
        assert writer.failures == 1
        assert names(folder, ".model*") == []
        assert writer.last_good()[1]["iteration"] == 19
        (folder / "others").unlink()
        write_state(39, state)
        assert writer.last_good()[1]["iteration"] == 39
        assert writer.failures == 1
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_removed_folder_is_made_again(tmp_path, disk):
    folder = tmp_path / "run"
    writer = write(folder, 9)
    shutil.rmtree(folder)
    writer.save_periodic(19, STATE)
    writer.wait()
    assert names(folder) == ["model_0000019.pth"]
    disk.reached.clear()
    disk.go.clear()
    writer.save_periodic(29, STATE)
    assert disk.reached.wait(20)
    shutil.rmtree(folder)
    disk.go.set()
    assert writer.last_good()[1]["iteration"] == 29
    assert writer.failures == 0


class Task(torch.utils.data.Dataset):
    """Tells which files of a folder the worker has open."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __len__(self):
        return 4

    def __getitem__(self, index):
        places = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
        opened = [os.readlink(place) for place in places if os.path.islink(place)]
        return [place for place in opened if place.startswith(self.folder)]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_that_are_forked_while_a_checkpoint_is_written_work_and_hold_no_file(
    tmp_path, disk
):
    writer = checkpointer(tmp_path)
    disk.reached.clear()
    disk.go.clear()
    writer.save_periodic(9, STATE)
    assert disk.reached.wait(20)
    loader = torch.utils.data.DataLoader(
        Task(tmp_path), num_workers=2, batch_size=None, multiprocessing_context="fork", timeout=20
    )
    assert list(loader) == [[]] * 4
    assert Task(tmp_path)[0] != []  # this process does have it open
    disk.go.set()
    assert writer.last_good()[1]["iteration"] == 9


def test_the_only_good_one_is_kept_until_the_next_is_there(tmp_path, disk):
    writer = write(tmp_path, 9, keep=1)
    disk.error = errno.ENOSPC
    writer.save_periodic(19, STATE)
    assert writer.last_good()[1]["iteration"] == 9
    disk.error = None
    writer.save_periodic(29, STATE)
    writer.wait()
    assert names(tmp_path) == ["model_0000029.pth"]
