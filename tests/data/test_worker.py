"""Data workers as processes: signals, the end of their parent, and processes that begin empty."""

import itertools
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from multiprocessing import resource_sharer

import numpy as np
import pytest

from detlite.config.loader import import_component
from detlite.data.loader import Loader
from detlite.data.mapper import TrainingData
from detlite.data.samplers import SequentialSampler, TrainingBatchSampler
from detlite.data.worker import init_worker

from .faulty_dataset import FaultyDataset, workers_of


def loader_of(dataset, num_workers=2, **data):
    order = SequentialSampler(images=np.arange(len(dataset)), image_classes=[], seed=0)
    batches = TrainingBatchSampler(order, batch_size=2)
    return Loader(TrainingData([dataset], [], **data), batches, num_workers=num_workers)


@pytest.fixture
def in_process():
    """Run a function in a process of its own, with a function to send; returns both ends."""
    processes = []

    def start(function, *arguments):
        here, there = multiprocessing.Pipe()
        process = multiprocessing.get_context("fork").Process(
            target=function, args=(there.send, *arguments)
        )
        process.start()
        processes.append(process)
        there.close()
        return process, here

    yield start
    for process in processes:
        process.kill()
        process.join()


def is_there(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1"])
def test_workers_leave_the_signals_of_a_run_to_its_process(tmp_path, name):
    loader = loader_of(FaultyDataset(tmp_path, 8))
    batches = iter(loader)
    next(batches)
    workers = list(workers_of(loader))
    for worker in workers:
        os.kill(worker.pid, getattr(signal, name))
    for _ in range(8):
        next(batches)
    assert [worker.exitcode for worker in workers] == [None, None]
    assert loader.faults == {}
    loader.close()
    assert not any(worker.is_alive() for worker in workers)


def train_for_ever(send, dataset):
    loader = loader_of(dataset)
    for number, _ in enumerate(loader):
        if number == 2:
            send([worker.pid for worker in workers_of(loader)])


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")
@pytest.mark.parametrize("faults", [{}, {7: ("hang", 1)}])
def test_workers_end_with_a_parent_that_was_killed(tmp_path, in_process, faults):
    process, pipe = in_process(train_for_ever, FaultyDataset(tmp_path, 12, faults))
    workers = pipe.recv()
    assert all(map(is_there, workers))
    process.kill()
    process.join()
    assert wait_until(lambda: not any(map(is_there, workers)), 10)


def be_a_worker_whose_parent_breaks_off(send, stderr):
    sys.stderr = stderr.open("w", buffering=1)
    init_worker(0)
    address, _ = resource_sharer.DupFd(2)._id
    for _ in range(3):
        with socket.socket(socket.AF_UNIX) as parent:
            parent.connect(address)
    resource_sharer.stop(5)  # when it has served the three
    error = KeyError("a true error")
    thread = threading.Thread(target=sys.excepthook, args=(KeyError, error, None))
    thread.start()
    thread.join()


def test_a_transfer_that_the_parent_breaks_off_leaves_no_traceback(tmp_path, in_process):
    stderr = tmp_path / "stderr"
    process, _ = in_process(be_a_worker_whose_parent_breaks_off, stderr)
    process.join(20)
    assert stderr.read_text() == "KeyError: 'a true error'\n"


def train_until_interrupted(send, dataset, stderr):
    os.setsid()
    sys.stderr = stderr.open("a", buffering=1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        train_for_ever(send, dataset)
    except KeyboardInterrupt:
        send("interrupted")


def test_ctrl_c_at_any_moment_leaves_no_traceback_of_a_worker(tmp_path, in_process):
    # A main thread that is interrupted while it takes a tensor would leave the worker that sends
    # it in the lurch, and that would tell of it.
    stderr = tmp_path / "stderr"
    for delay in (0, 0.05, 0.11, 0.23):
        process, pipe = in_process(train_until_interrupted, FaultyDataset(tmp_path, 8), stderr)
        pipe.recv()
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGINT)
        assert pipe.poll(20)
        assert pipe.recv() == "interrupted"
        process.join(20)
        assert process.exitcode == 0
    assert stderr.read_text() == ""


def leave(send, dataset):
    batches = iter(loader := loader_of(dataset))
    next(batches)
    send([worker.pid for worker in workers_of(loader)])
    dataset.keep = batches
    sys.exit(3)


def test_a_process_that_exits_ends_its_workers_before_it_waits_for_them(tmp_path, in_process):
    # multiprocessing waits for its children, after a SIGTERM that these ignore.
    process, pipe = in_process(leave, FaultyDataset(tmp_path, 12, {5: ("hang", 1)}))
    workers = pipe.recv()
    process.join(20)
    assert process.exitcode == 3
    assert not any(map(is_there, workers))


LEAVE = """
import sys
from pathlib import Path
from tests.data.faulty_dataset import FaultyDataset, workers_of
from tests.data.test_worker import loader_of

loader = loader_of(FaultyDataset(Path(sys.argv[1]), 12, {5: ("hang", 1)}))
batches = iter(loader)
next(batches)
print(*(worker.pid for worker in workers_of(loader)), flush=True)
sys.exit(3)
"""


@pytest.mark.slow
def test_a_process_that_just_leaves_takes_its_workers_along(tmp_path):
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    done = subprocess.run(
        [sys.executable, "-c", LEAVE, tmp_path],
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": root},
        timeout=60,
    )
    assert done.returncode == 3
    assert done.stderr == ""
    pids = done.stdout.split()
    assert len(pids) == 2
    assert not any(map(is_there, pids))


PROJECT = """
import torch
from detlite.data import DetectionDataset

class Plain(DetectionDataset):
    def __init__(self):
        super().__init__(
            folder="", name="plain", categories={"box": 1}, image_ids=[0, 1],
            file_names=["a", "b"], sizes=[(8, 8)] * 2, box_images=[0, 1],
            boxes_xywh=[(1, 1, 4, 4)] * 2, classes=[0, 0],
        )

    def read_image(self, i):
        return torch.full((3, 8, 8), i, dtype=torch.uint8)
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_data_set_of_a_project_works_in_workers_that_begin_empty(tmp_path, method):
    path = tmp_path / "plain_dataset.py"
    path.write_text(PROJECT)
    dataset = import_component(str(path), "the test").Plain()
    loader = loader_of(dataset, num_workers=1, imports=[str(path)])
    loader.loader.multiprocessing_context = method
    seen = [
        [int(sample["image"][0, 0, 0]) for sample in batch] for batch in itertools.islice(loader, 3)
    ]
    assert seen == [[0, 1]] * 3
    assert loader.faults == {}
