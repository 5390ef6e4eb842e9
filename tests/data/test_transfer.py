"""Batches from workers where the system sets narrow limits."""

import ctypes
import multiprocessing
import os
import resource
import signal
import subprocess
import time

import pytest

from detlite.errors import DataError

from .faulty_dataset import FaultyDataset, take
from .test_worker import loader_of

_NEW_MOUNTS = 0x20000  # CLONE_NEWNS


def little_shared_memory(size):
    """In a process of its own: a /dev/shm of its own."""
    if ctypes.CDLL(None).unshare(_NEW_MOUNTS):
        return False
    mounts = [
        ["mount", "--make-rprivate", "/"],
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", "/dev/shm"],
    ]
    return all(subprocess.run(each, capture_output=True).returncode == 0 for each in mounts)


def few_files(count):
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + count, used + count))
    return True


def train(send, loader, limit, value):
    if not limit(value):
        send("not permitted")
        return
    try:
        send(take(loader, 30))
    except DataError as error:
        send(str(error))
    except BaseException as error:
        send(f"no DataError: {error!r}")
        raise


def result_of(tmp_path, limit, value):
    here, there = multiprocessing.Pipe()
    loader = loader_of(FaultyDataset(tmp_path, 12))
    process = multiprocessing.get_context("fork").Process(
        target=train, args=(there.send, loader, limit, value)
    )
    process.start()
    try:
        assert here.poll(60), "it hangs"
        result = here.recv()
    finally:
        process.kill()
        process.join()
    if result == "not permitted":
        pytest.skip("this user may not mount a file system")
    return result


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs /dev/shm")
@pytest.mark.parametrize("size", ["4k", "16k"])
def test_a_full_shared_memory_is_an_error_that_names_it_and_the_remedies(tmp_path, size):
    message = result_of(tmp_path, little_shared_memory, size)
    assert isinstance(message, str)
    for fact in ("/dev/shm", "it has 0.0 MB", "--shm-size", "data.num_workers=0"):
        assert fact in message


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
@pytest.mark.parametrize("count", [0, 2, 5, 8, 11, 14])
def test_few_file_descriptors_are_an_error_that_names_the_limit(tmp_path, count):
    message = result_of(tmp_path, few_files, count)
    if isinstance(message, list):
        # There were enough: the faster a batch is taken, the fewer are open at a time.
        assert count > 0
        return
    for fact in ("open files", "ulimit -n", "data.num_workers=0"):
        assert fact in message


def test_workers_end_when_others_cannot_be_started_whatever_the_error(tmp_path, monkeypatch):
    # Python waits for its children at the exit, and these ignore the SIGTERM that it sends.
    context, started = multiprocessing.get_context("fork").Process, []

    def start(worker):
        if started:
            raise ImportError("no file to read a module from")
        context.start(worker)
        started.append(worker)

    monkeypatch.setattr(multiprocessing.Process, "start", start)
    before = set(multiprocessing.active_children())
    with pytest.raises(ImportError):
        next(iter(loader_of(FaultyDataset(tmp_path, 12), num_workers=2)))
    assert started
    assert set(multiprocessing.active_children()) == before


def test_a_stop_is_obeyed_while_a_stopped_worker_is_waited_for(tmp_path):
    class Stopped(BaseException):
        pass

    def stop(*_):
        raise Stopped

    loader = loader_of(FaultyDataset(tmp_path, 12, {5: ("hang", 1)}))
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(1)
    began = time.monotonic()
    try:
        with pytest.raises(Stopped):
            take(loader, 30)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - began < 30
