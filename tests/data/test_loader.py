"""What a loader does about workers that die, samples that hang, and images that cannot be read."""

import itertools
import logging
import os
import signal
import threading
import time

import numpy as np
import pytest
import torch

from detlite import DataError
from detlite.data import mapper, worker_run
from detlite.data.loader import Loader
from detlite.data.mapper import TestData, TrainingData
from detlite.data.samplers import (
    SequentialSampler,
    ShuffleSampler,
    TestBatchSampler,
    TrainingBatchSampler,
)

from .faulty_dataset import FaultyDataset

NUM_IMAGES = 12


@pytest.fixture
def faulty(tmp_path):
    """Make a data set with faults, as {image: (kind, times)}."""
    return lambda faults=(): FaultyDataset(tmp_path, NUM_IMAGES, faults)


@pytest.fixture
def training():
    """Make a training loader of a data set: images 0, 1, 2, ... in batches of two."""
    loaders = []

    def make(dataset, *, num_workers=1, start=0, sampler=SequentialSampler, data=(), **options):
        order = sampler(
            images=np.arange(NUM_IMAGES), image_classes=[np.zeros(1, int)] * NUM_IMAGES, seed=0
        )
        batches = TrainingBatchSampler(order, batch_size=2, start=start)
        options = {"sample_timeout": 30.0, **options}
        source = TrainingData([dataset], [], **dict(data))
        loaders.append(Loader(source, batches, num_workers=num_workers, **options))
        return loaders[-1]

    yield make
    for loader in loaders:
        loader.close()


def images_of(batch):
    return [int(sample["image"][0, 0, 0]) for sample in batch]


def take(loader, num_batches):
    return [images_of(batch) for batch in itertools.islice(loader, num_batches)]


WITHOUT_FAULT = [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11]]


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
    assert loader.faults["worker_died"] == 3


def workers_of(loader):
    (run,) = loader._runs
    return run._workers


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


def test_a_sample_that_is_lost_twice_is_an_error_that_names_it(faulty, training):
    dataset = faulty({3: ("exit", 9)})
    loader = training(dataset)
    with pytest.raises(DataError) as error:
        take(loader, 4)
    assert f"ended with exit code 7, at '{dataset.file_name(3)}' (position 3), for the second" in (
        str(error.value)
    )
    assert "data.lost_sample=skip" in str(error.value)
    assert dataset.reads()[3] == 2


def test_the_policy_may_be_to_stop_at_the_first_loss(faulty, training):
    dataset = faulty({3: ("exit", 1)})
    with pytest.raises(DataError, match=r"3\.png' \(position 3\)\. data\.lost_sample=retry would"):
        take(training(dataset, lost_sample="stop"), 4)
    assert dataset.reads()[3] == 1


@pytest.mark.parametrize("kind", ["exit", pytest.param("hang", marks=pytest.mark.slow)])
def test_the_policy_may_be_to_skip_after_one_retry(faulty, training, caplog, kind):
    dataset = faulty({3: (kind, 99)})
    loader = training(dataset, lost_sample="skip", sample_timeout=1.0)
    seen = take(loader, 4)
    # What the position draws takes the place of the image, and only there.
    drawn = int(np.random.default_rng([0, 3, 1]).choice(np.arange(NUM_IMAGES)))
    assert drawn != 3
    assert seen == [[0, 1], [2, drawn], [4, 5], [6, 7]]
    assert dataset.reads()[3] == 2
    name = "worker_died" if kind == "exit" else "sample_hung"
    assert loader.faults == {name: 2, "skipped": 1}
    assert "for the second time; another image takes its place" in caplog.text
    assert "skipped an image, another takes its place: data workers were lost at" in caplog.text


def test_a_resumed_run_skips_the_same_images_without_reading_them(faulty, training):
    dataset = faulty({3: ("exit", 99)})
    first = training(dataset, lost_sample="skip")
    expected = take(first, 4)
    assert first.state_dict() == {"lost": [[3, 3]], "faults": {"worker_died": 2, "skipped": 1}}
    again = training(dataset, lost_sample="skip", num_workers=0)
    again.load_state_dict(first.state_dict())
    assert take(again, 4) == expected
    assert dataset.reads()[3] == 2
    assert again.faults == {"worker_died": 2, "skipped": 2}


def test_the_states_of_several_ranks_are_joined(faulty, training):
    loader = training(faulty())
    states = [
        {"lost": [[3, 1], [3, 5]], "faults": {"skipped": 2}},
        {"lost": [[3, 1], [8, 2]], "faults": {"skipped": 1, "unreadable": 4}},
    ]
    loader.load_state_dict(states)
    assert loader.state_dict()["lost"] == [[3, 1], [3, 5], [8, 2]]
    assert loader.faults == {"skipped": 3, "unreadable": 4}
    loader.load_state_dict({})
    assert loader.state_dict() == {"lost": [], "faults": {}}


def test_every_loss_of_another_sample_is_a_new_case(faulty, training):
    loader = training(faulty(dict.fromkeys(range(1, 6), ("exit", 1))))
    assert take(loader, 6) == WITHOUT_FAULT
    assert loader.faults["worker_died"] == 5


def test_a_test_image_is_tried_again_and_never_skipped(faulty):
    def loader(dataset):
        batches = TestBatchSampler(NUM_IMAGES, batch_size=2)
        return Loader(TestData(dataset, []), batches, num_workers=1, lost_sample="skip")

    once = loader(faulty({3: ("exit", 1)}))
    assert take(once, 9) == WITHOUT_FAULT
    assert once.faults == {"worker_died": 1}
    assert take(once, 9) == WITHOUT_FAULT  # a second evaluation
    with pytest.raises(DataError, match=r"for the second time\. A test image cannot be"):
        take(loader(faulty({2: ("exit", 99)})), 9)


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


def test_an_error_that_may_pass_is_read_again(faulty, training, monkeypatch, caplog):
    monkeypatch.setattr(mapper, "RETRY_PAUSE", 0.001)
    dataset = faulty({3: ("EIO", 1), 4: ("EIO", 2)})
    loader = training(dataset, data={"read_retries": 2})
    assert take(loader, 4) == WITHOUT_FAULT[:4]
    assert loader.faults == {"retried_reads": 3}
    assert f"'{dataset.file_name(4)}' took 2 more attempts to read" in caplog.text


def test_an_error_that_does_not_pass_is_told_with_its_attempts(faulty, training, monkeypatch):
    monkeypatch.setattr(mapper, "RETRY_PAUSE", 0.001)
    dataset = faulty({3: ("EIO", 9)})
    with pytest.raises(DataError, match=r"3\.png' cannot be read: .*Input/output error \(the last"):
        take(training(dataset, data={"read_retries": 2}), 4)
    assert dataset.reads()[3] == 3


def test_a_file_that_is_missing_is_not_waited_for(faulty, training):
    dataset = faulty({3: ("ENOENT", 9)})
    loader = training(dataset, data={"read_retries": 5, "skip_broken": True})
    assert [3 in batch for batch in take(loader, 4)] == [False] * 4
    assert dataset.reads()[3] == 1
    assert loader.faults == {"unreadable": 1, "skipped": 1}


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_resumed_run_reads_nothing_twice(faulty, training, num_workers):
    dataset = faulty()
    loader = training(dataset, start=6, num_workers=num_workers)
    batches = iter(loader)
    assert [images_of(next(batches)) for _ in range(2)] == WITHOUT_FAULT[:2]
    if num_workers == 0:
        assert dataset.reads() == {0: 1, 1: 1, 2: 1, 3: 1}
    loader.close()
    # A worker reads ahead, yet nothing before where the run goes on.
    first = dataset.notes.read_text().split()[:8]
    assert list(map(int, first)) == [0, 1, 2, 3, 4, 5, 6, 7][: len(first)]


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
    monkeypatch.setattr(worker_run.WorkerRun.close, "__defaults__", (0.2,))
    loader = training(faulty({5: ("hang", 1)}), num_workers=2)
    batches = iter(loader)
    next(batches)
    workers = list(workers_of(loader))
    start = time.monotonic()
    if abandon == "close":
        loader.close()
        loader.close()
    else:
        del batches
    assert time.monotonic() - start < 10
    assert not any(worker.is_alive() for worker in workers)


def test_a_fault_is_a_warning_in_the_log(faulty, training, caplog):
    take(training(faulty({1: ("exit", 1)})), 1)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.name == "detlite.data.loader"
