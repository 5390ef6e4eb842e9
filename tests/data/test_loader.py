"""What a loader does about workers that die, hang, or are left alone."""

import itertools
import logging
import os
import signal
import threading
import time

import pytest
import torch

from detlite import DataError
from detlite.data import worker_run
from detlite.data.samplers import ShuffleSampler

from .faulty_dataset import WITHOUT_FAULT, images_of, take, workers_of


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("exit", "ended with exit code 7"),
        ("sys_exit", "ended with exit code 0"),
        ("segfault", "was killed by SIGSEGV; as a rule a library"),
        ("kill", "was killed by SIGKILL; as a rule the system kills workers when memory"),
    ],
)
def test_a_worker_that_dies_is_replaced_and_no_sample_changes(faulty, training, caplog, kind, told):
    dataset = faulty({3: (kind, 1)})
    loader = training(dataset)
    assert take(loader, 6) == WITHOUT_FAULT
    assert loader.faults == {"worker_died": 1}
    assert told in caplog.text
    assert f"at '{dataset.file_name(3)}' (position 3); new workers go on at batch" in caplog.text
    assert "pid" in caplog.text


def test_a_sample_that_hangs_is_tried_again(faulty, training, caplog):
    loader = training(faulty({3: ("hang", 1)}), sample_timeout=1.0)
    start = time.monotonic()
    assert take(loader, 4) == WITHOUT_FAULT[:4]
    assert 1 < time.monotonic() - start < 20
    assert loader.faults == {"sample_hung": 1}
    assert "was at one sample for 1." in caplog.text


@pytest.mark.slow
def test_a_timeout_of_zero_waits_for_ever(faulty, training, monkeypatch):
    monkeypatch.setattr(worker_run, "_QUIET", 0.0)
    loader = training(faulty({1: ("hang", 1)}), sample_timeout=0.0)
    threading.Timer(1.5, loader.close).start()
    assert take(loader, 1) == []
    assert loader.faults == {}


def test_a_clock_that_is_set_back_hangs_nothing_and_hides_nothing(faulty, training, monkeypatch):
    clock = itertools.count(2e9, -3600.0)
    monkeypatch.setattr(time, "time", lambda: next(clock))
    loader = training(faulty({3: ("hang", 1)}), sample_timeout=1.0)
    assert take(loader, 4) == WITHOUT_FAULT[:4]
    assert loader.faults == {"sample_hung": 1}


def test_a_worker_killed_from_outside_in_mid_epoch_changes_nothing(faulty, training):
    loader = training(faulty(), num_workers=2, sampler=ShuffleSampler)
    expected = take(training(faulty(), num_workers=0, sampler=ShuffleSampler), 60)
    seen = []
    for number, batch in enumerate(itertools.islice(loader, 60)):
        seen.append(images_of(batch))
        if number in (5, 20, 21):
            os.kill(workers_of(loader)[number % 2].pid, signal.SIGKILL)
    assert seen == expected
    # The third may meet a worker that is being replaced already.
    assert loader.faults["worker_died"] in (2, 3)


def test_a_worker_that_dies_during_a_step_does_not_break_into_it(faulty, training):
    loader = training(faulty())
    batches = iter(loader)
    next(batches)
    # torch's own handler of SIGCHLD would raise here, in the middle of whatever goes on.
    os.kill(workers_of(loader)[0].pid, signal.SIGKILL)
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        sum(range(1000))
    assert [images_of(next(batches)) for _ in range(3)] == WITHOUT_FAULT[1:4]
    assert loader.faults == {"worker_died": 1}


def test_the_random_numbers_of_the_run_do_not_notice_a_new_worker(faulty, training):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    assert take(training(faulty({3: ("exit", 1)})), 4) == WITHOUT_FAULT[:4]
    assert torch.equal(torch.rand(3), expected)


def test_workers_that_die_at_no_sample_end_the_run_at_the_third_time(
    faulty, training, caplog, monkeypatch
):
    def die(samples):
        os.kill(os.getpid(), signal.SIGKILL)

    loader = training(faulty())
    loader.loader.collate_fn = die
    with pytest.raises(DataError) as error:
        take(loader, 1)
    assert "data workers were lost 3 times before batch 0, and never at a sample" in str(
        error.value
    )
    assert "/dev/shm" in str(error.value)
    assert loader.faults == {"worker_died": 3}
    assert caplog.text.count("at no sample; new workers go on at batch 0") == 3


def test_many_workers_that_die_at_once_are_one_case(faulty, training):
    loader = training(faulty(), num_workers=2)
    batches = iter(loader)
    next(batches)
    for worker in workers_of(loader) * 2:
        os.kill(worker.pid, signal.SIGKILL)
    assert images_of(next(batches)) == [2, 3]


def test_a_worker_that_says_nothing_at_all_is_replaced(faulty, training, monkeypatch):
    monkeypatch.setattr(worker_run, "_QUIET", 1.0)
    loader = training(faulty(), sample_timeout=1.0)
    batches = iter(loader)
    next(batches)
    os.kill(workers_of(loader)[0].pid, signal.SIGSTOP)
    # Up to two batches were ready when it was stopped.
    assert [images_of(next(batches)) for _ in range(5)] == WITHOUT_FAULT[1:6]
    assert sum(loader.faults.values()) == 1


def test_a_bug_in_a_data_set_is_no_fault_of_the_workers(faulty, training):
    loader = training(faulty({3: ("bug", 9)}))
    with pytest.raises(KeyError, match="a bug"):
        take(loader, 4)
    assert loader.faults == {}


def test_a_loader_goes_back_to_where_it_is_told_to(faulty, training):
    loader = training(faulty())
    batches = iter(loader)
    assert [images_of(next(batches)) for _ in range(3)] == WITHOUT_FAULT[:3]
    loader.restart(1)
    assert list(batches) == []
    assert take(loader, 3) == WITHOUT_FAULT[1:4]
    assert take(loader, 1) == WITHOUT_FAULT[1:2]


@pytest.mark.parametrize("abandon", ["close", "break"])
def test_no_worker_stays_behind(faulty, training, monkeypatch, abandon):
    monkeypatch.setattr(worker_run.WorkerRun.close, "__defaults__", (1.0,))
    loader = training(faulty({5: ("hang", 1)}), num_workers=2)
    batches = iter(loader)
    next(batches)
    workers = list(workers_of(loader))
    start = time.monotonic()
    if abandon == "close":
        loader.close()
        again = time.monotonic()
        loader.close()
        assert time.monotonic() - again < 0.5  # they had their time to end
    else:
        del batches
    assert time.monotonic() - start < 10
    assert not any(worker.is_alive() for worker in workers)


def test_a_fault_is_a_warning_in_the_log(faulty, training, caplog):
    take(training(faulty({1: ("exit", 1)})), 1)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.name == "detlite.data.loader"
